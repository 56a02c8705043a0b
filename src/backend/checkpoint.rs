//! What a long training keeps of itself, so that it can go on after its process was killed.
//!
//! A backend offers the state of a job every so often, as bytes of its own making; who keeps them is not its business. When
//! the same job comes again it gets them back and goes on from there. Time decides when a state is offered, never what
//! comes out: a training that went on from any of its states ends with the same bits.

use std::time::Duration;

use super::simd::Lanes;

/// Number of the layout of states: to be raised whenever what a [`Record`] puts changes, so that no program reads the state of
/// another one wrongly. Tests beside the states compare their layouts with those of this number.
pub const LAYOUT: u32 = 1;

/// Keeps states of jobs. Groups and jobs are counted as the backend was given them.
pub trait Checkpoints: Sync {
    /// How much time a training may lose.
    fn every(&self) -> Duration;
    /// What was kept of a job.
    fn load(&self, group: usize, job: usize) -> Option<Vec<u8>>;
    /// Keeps the state of a job in place of an older one. A state that cannot be kept is a warning, not a failure.
    fn save(&self, group: usize, job: usize, state: &[u8]);
}

/// Something that bytes keep exactly.
pub trait Record: Sized {
    /// Appends it to `to`.
    fn put(&self, to: &mut Vec<u8>);
    /// Takes it from the front of `from`; none where the bytes are not its own.
    fn get(from: &mut &[u8]) -> Option<Self>;
    /// What it puts, in words: names and types in order.
    fn layout() -> String;
}

/// The layout of a field, whatever its type is.
pub fn layout_of<S, T: Record>(_field: impl Fn(&S) -> &T) -> String {
    T::layout()
}

/// Numbers by their bits, least first.
macro_rules! numbers {
    ($($number:ty),+) => {
        $(impl Record for $number {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(<$number>::from_le_bytes(*bytes))
            }
            fn layout() -> String {
                stringify!($number).into()
            }
        })+
    };
}

numbers!(u8, u32, u64, f32, f64);

impl Record for usize {
    fn put(&self, to: &mut Vec<u8>) {
        (*self as u64).put(to);
    }
    fn get(from: &mut &[u8]) -> Option<Self> {
        usize::try_from(u64::get(from)?).ok()
    }
    fn layout() -> String {
        "usize".into()
    }
}

impl Record for bool {
    fn put(&self, to: &mut Vec<u8>) {
        u8::from(*self).put(to);
    }
    fn get(from: &mut &[u8]) -> Option<Self> {
        match u8::get(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn layout() -> String {
        "bool".into()
    }
}

impl Record for Lanes {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.iter().for_each(|x| x.put(to));
    }
    fn get(from: &mut &[u8]) -> Option<Self> {
        let mut lanes = Lanes::default();
        for x in &mut lanes.0 {
            *x = f32::get(from)?;
        }
        Some(lanes)
    }
    fn layout() -> String {
        "lanes".into()
    }
}

impl<T: Record> Record for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }
    fn get(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::get(from)? { Some(T::get(from)?) } else { None })
    }
    fn layout() -> String {
        format!("{}?", T::layout())
    }
}

impl<T: Record> Record for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.len().put(to);
        self.iter().for_each(|value| value.put(to));
    }
    fn get(from: &mut &[u8]) -> Option<Self> {
        let len = usize::get(from)?;
        // Every value takes a byte at least, so a length that was damaged does not ask for the whole memory.
        let mut values = Vec::with_capacity(len.min(from.len()));
        for _ in 0..len {
            values.push(T::get(from)?);
        }
        Some(values)
    }
    fn layout() -> String {
        format!("[{}]", T::layout())
    }
}

impl<A: Record, B: Record> Record for (A, B) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }
    fn get(from: &mut &[u8]) -> Option<Self> {
        Some((A::get(from)?, B::get(from)?))
    }
    fn layout() -> String {
        format!("({}, {})", A::layout(), B::layout())
    }
}

/// `record!(Type { fields })`: a structure by its fields, all of which have to be named.
macro_rules! record {
    ($kind:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::backend::checkpoint::Record for $kind {
            fn put(&self, to: &mut Vec<u8>) {
                let $kind { $($field),+ } = self;
                $($crate::backend::checkpoint::Record::put($field, to);)+
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                Some($kind { $($field: $crate::backend::checkpoint::Record::get(from)?),+ })
            }
            fn layout() -> String {
                let field = |name: &str, layout: String| format!("{name} {layout}");
                let fields = [$(field(stringify!($field), $crate::backend::checkpoint::layout_of(|of: &$kind| &of.$field))),+];
                format!("{}({})", stringify!($kind), fields.join(", "))
            }
        }
    };
}
pub(crate) use record;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Thing {
        name: u64,
        rows: Vec<Lanes>,
        last: Option<(f64, bool)>,
        counts: Vec<usize>,
    }
    record!(Thing { name, rows, last, counts });

    fn thing() -> Thing {
        let rows = vec![Lanes([0.1; 16]), Lanes([-0.0; 16]), Lanes([1e-45; 16])];
        Thing { name: 7, rows, last: Some((f64::MIN_POSITIVE, true)), counts: vec![0, usize::MAX] }
    }

    #[test]
    fn what_was_put_is_got_bit_for_bit() {
        let mut bytes = vec![];
        thing().put(&mut bytes);
        let mut rest = &bytes[..];
        let again = Thing::get(&mut rest).expect("its own bytes");
        assert_eq!((&again, rest.len()), (&thing(), 0));
        // -0 equals 0, so bits are compared too.
        let mut twice = vec![];
        again.put(&mut twice);
        assert_eq!(bytes, twice);
    }

    #[test]
    fn bytes_that_end_early_are_not_taken() {
        let mut bytes = vec![];
        thing().put(&mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(Thing::get(&mut &bytes[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn a_layout_names_fields_and_types_in_order() {
        assert_eq!(Thing::layout(), "Thing(name u64, rows [lanes], last (f64, bool)?, counts [usize])");
    }

    #[test]
    fn a_length_beyond_all_memory_is_refused() {
        let mut bytes = vec![];
        usize::MAX.put(&mut bytes);
        assert_eq!(Vec::<f32>::get(&mut &bytes[..]), None);
    }
}
