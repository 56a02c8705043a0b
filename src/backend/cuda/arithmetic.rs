//! Arithmetics that a GPU offers. Each is a profile: part of a cell's identity, never chosen but by request.

/// How the encoder's product of autoencoders is taken; all else is f32, in fixed order, in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arithmetic {
    /// In f32, one chain over the columns: the same bits on every GPU.
    #[default]
    F32,
    /// On tensor cores, of factors rounded to TF32 (11 bits). The order of the sum is the chip's: the same bits from run to run
    /// on one kind of chip.
    Tf32,
}

impl Arithmetic {
    /// Every one.
    pub const ALL: [Arithmetic; 2] = [Arithmetic::F32, Arithmetic::Tf32];

    /// As `--arithmetic` has it.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Tf32 => "tf32",
        }
    }

    /// The arithmetic profile: rows of two profiles agree within tolerance only.
    pub fn profile(self) -> &'static str {
        match self {
            Arithmetic::F32 => "cuda-f32-v1",
            Arithmetic::Tf32 => "cuda-tf32-v1",
        }
    }

    /// Compute capability from which on chips have it: any that kernels load on has f32.
    pub fn least_capability(self) -> (i32, i32) {
        match self {
            Arithmetic::F32 => (0, 0),
            Arithmetic::Tf32 => (8, 0),
        }
    }

    /// The kernel that takes the product; its module has the same name.
    pub fn encoder(self) -> &'static str {
        match self {
            Arithmetic::F32 => "sae_encode",
            Arithmetic::Tf32 => "sae_encode_tf32",
        }
    }
}
