//! `tegum devices`: what can train here.

use super::{Outcome, print};
use crate::backend;
use crate::backend::simd::Isa;
use crate::run::cpu_model;

pub fn carry_out() -> Outcome {
    let cpu = cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let threads = rayon::current_num_threads();
    let instructions: Vec<String> = Isa::available().iter().map(|isa| format!("{isa:?}").to_lowercase()).collect();
    let text = format!(
        "cpu   available: {cpu}, {threads} threads, instruction sets {} (profile {})\ncuda  {}",
        instructions.join(", "),
        backend::cpu::PROFILE,
        backend::cuda::find::report()
    );
    print(&text)?;
    Ok(0)
}
