//! What needs a program that fails on purpose, and nothing else, so that it is soon built:
//! `cargo test --release --features faults --test faults`.

#[allow(dead_code)]
mod program;
mod supervisor;
