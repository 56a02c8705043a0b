//! Conditions over the settings of a cell: a small language of its own, so that what an experiment says can neither call a function,
//! open a file nor exhaust the stack.
//!
//! A setting that is `none` is null: what is computed from it is null, `and` and `or` are those of three values, and a condition that
//! comes out null does not hold. Texts and numbers do not compare, and nothing is divided by zero.

use std::cmp::Ordering;

mod reader;
mod words;

use reader::Reader;

/// Most bytes of a condition.
const MOST_BYTES: usize = 4096;

/// What is wrong with a condition, and where in its text, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub at: usize,
    pub message: String,
}

/// What a path is in one cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Number(f64),
    Text(&'a str),
    Bool(bool),
}

/// A condition, ready to be asked.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Every path that it names, once, with where it does so first.
    pub paths: Vec<(String, usize)>,
    /// In the order of a stack machine, each with its place in the text.
    steps: Vec<(Step, usize)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Number(f64),
    Text(String),
    Bool(bool),
    Path(usize),
    Negate,
    Not,
    And,
    Or,
    Arithmetic(char),
    Compare(Comparison),
    /// The top so many values are a list that the one below is looked for in.
    In(usize),
    IsNull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// The first thing that is not of the language, or more of it than anybody writes.
    pub fn read(text: &str) -> Result<Condition, Wrong> {
        if text.len() > MOST_BYTES {
            return Err(Wrong { at: 0, message: format!("{} bytes are more than {MOST_BYTES}", text.len()) });
        }
        Reader::of(text)?.whole()
    }

    /// Whether it holds, where `value` says what each of [`paths`](Condition::paths) is.
    ///
    /// # Errors
    /// Values of kinds that do not go together, a division by zero, or an answer that is no yes or no.
    pub fn holds<'a>(&'a self, value: impl Fn(usize) -> Value<'a>) -> Result<bool, Wrong> {
        let mut stack: Vec<Value<'a>> = vec![];
        for (step, at) in &self.steps {
            let made = self.run(step, &mut stack, &value).map_err(|message| Wrong { at: *at, message })?;
            stack.push(made);
        }
        match stack.pop().expect("a condition that was read leaves one value") {
            Value::Bool(holds) => Ok(holds),
            Value::Null => Ok(false),
            other => Err(Wrong { at: 0, message: format!("{} is neither true nor false", shown(other)) }),
        }
    }

    fn run<'a>(
        &'a self,
        step: &'a Step,
        stack: &mut Vec<Value<'a>>,
        value: &impl Fn(usize) -> Value<'a>,
    ) -> Result<Value<'a>, String> {
        let mut pop = || stack.pop().expect("the reader writes a step behind what it takes");
        Ok(match step {
            Step::Number(number) => Value::Number(*number),
            Step::Text(text) => Value::Text(text),
            Step::Bool(bool) => Value::Bool(*bool),
            Step::Path(path) => value(*path),
            Step::Negate => number(pop())?.map_or(Value::Null, |x| Value::Number(-x)),
            Step::Not => truth(pop())?.map_or(Value::Null, |x| Value::Bool(!x)),
            Step::And | Step::Or => {
                let (b, a) = (truth(pop())?, truth(pop())?);
                // What decides by itself: false of `and`, true of `or`.
                let decides = *step == Step::Or;
                match (a, b) {
                    (Some(x), _) | (_, Some(x)) if x == decides => Value::Bool(decides),
                    (Some(_), Some(_)) => Value::Bool(!decides),
                    _ => Value::Null,
                }
            }
            Step::Arithmetic(sign) => {
                let (b, a) = (number(pop())?, number(pop())?);
                let (Some(a), Some(b)) = (a, b) else { return Ok(Value::Null) };
                Value::Number(arithmetic(*sign, a, b)?)
            }
            Step::Compare(comparison) => {
                let (b, a) = (pop(), pop());
                compare(a, b)?.map_or(Value::Null, |order| Value::Bool(comparison.holds(order)))
            }
            Step::In(count) => {
                let list: Vec<Value> = (0..*count).map(|_| pop()).collect();
                let sought = pop();
                if sought == Value::Null {
                    return Ok(Value::Null);
                }
                let mut found = false;
                for value in list {
                    found |= compare(sought, value)? == Some(Ordering::Equal);
                }
                Value::Bool(found)
            }
            Step::IsNull => Value::Bool(pop() == Value::Null),
        })
    }
}

impl Comparison {
    fn of(sign: &str) -> Option<Comparison> {
        Some(match sign {
            "=" | "==" => Comparison::Equal,
            "!=" | "<>" => Comparison::Different,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::Different => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

fn shown(value: Value) -> String {
    match value {
        Value::Null => "`none`".into(),
        Value::Number(x) => format!("the number {x}"),
        Value::Text(x) => format!("the text '{x}'"),
        Value::Bool(x) => format!("`{x}`"),
    }
}

/// None of a null.
fn number(value: Value) -> Result<Option<f64>, String> {
    match value {
        Value::Number(x) => Ok(Some(x)),
        Value::Null => Ok(None),
        other => Err(format!("{} is no number to reckon with", shown(other))),
    }
}

/// None of a null.
fn truth(value: Value) -> Result<Option<bool>, String> {
    match value {
        Value::Bool(x) => Ok(Some(x)),
        Value::Null => Ok(None),
        other => Err(format!("{} is neither true nor false: compare it with something", shown(other))),
    }
}

fn arithmetic(sign: char, a: f64, b: f64) -> Result<f64, String> {
    match sign {
        '+' => Ok(a + b),
        '-' => Ok(a - b),
        '*' => Ok(a * b),
        _ if b == 0.0 => Err(format!("{a} {sign} 0 divides by zero in some cell")),
        '/' => Ok(a / b),
        _ => Ok(a % b),
    }
}

/// None where one is null or no number.
fn compare(a: Value, b: Value) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(None),
        (Value::Number(a), Value::Number(b)) => Ok(a.partial_cmp(&b)),
        (Value::Text(a), Value::Text(b)) => Ok(Some(a.cmp(b))),
        (Value::Bool(a), Value::Bool(b)) => Ok(Some(a.cmp(&b))),
        (a, b) => Err(format!("{} does not compare with {}", shown(a), shown(b))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<bool, Wrong> {
        let condition = Condition::read(text)?;
        condition.holds(|path| match condition.paths[path].0.as_str() {
            "a" => Value::Number(3.0),
            "b.c" => Value::Number(0.0),
            "word" => Value::Text("fast"),
            "none" => Value::Null,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn conditions_hold_by_the_usual_precedence() {
        for (text, holds) in [
            ("a = 3", true),
            ("a > 2 and a < 3 or word = 'fast'", true),
            ("word = 'fast' or a > 2 and a < 3", true),
            ("(word = 'fast' or a > 2) and a < 3", false),
            ("not a = 4 and not not true", true),
            ("2 + 2 * 3 - 1 = 7", true),
            ("-a + -2 = -5 and - - 1 = 1", true),
            ("20 * a % 7 != 4", false),
            ("a / 2 = 1.5 and 1e0 = 1 and .5 = 0.5", true),
            ("a in (1, 2, a) and a not in (1, 4)", true),
            ("word IN ('slow', 'fast')", true),
            ("\"b.c\" = 0 and b.c <= 0 and b.c >= 0 and b.c <> 1 and b.c == 0", true),
        ] {
            assert_eq!(ask(text), Ok(holds), "{text}");
        }
    }

    /// Kleene's three values: what is computed from null is null unless the other side decides.
    #[test]
    fn what_is_none_decides_nothing() {
        for (text, holds) in [
            ("none = 1", false),
            ("not none = 1", false),
            ("none + 1 > 0 or a = 3", true),
            ("none > 0 and a = 4", false),
            ("not (none > 0 and a = 4)", true),
            ("none is null and a is not null", true),
            ("none in (1, 2)", false),
            ("none", false),
        ] {
            assert_eq!(ask(text), Ok(holds), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, at, message) in [
            ("a >>> 0", 3, "`>` stands where a value is expected"),
            ("a > ", 4, "it ends"),
            ("", 0, "it ends"),
            ("a = 3 4", 6, "`4` does not go on"),
            ("(a = 3", 6, "closing bracket"),
            ("a = 'fast", 4, "no ' ends"),
            ("a = 3; drop", 5, "`;` is not of the language"),
            ("read_csv('/etc/passwd') = 1", 8, "no functions"),
            ("a / b.c > 0", 2, "divides by zero"),
            ("1 % (a - 3) = 0", 2, "divides by zero"),
            ("word > 3", 5, "does not compare"),
            ("word + 1 > 3", 5, "no number"),
            ("a", 0, "neither true nor false"),
            ("a and true", 2, "neither true nor false"),
            ("a in 3", 5, "asks for a list"),
            ("a is 3", 5, "asks for `null`"),
            ("a = 1e999", 4, "no number"),
            ("a = 1x", 4, "no number"),
            ("a = 3 and and", 10, "`and` stands where"),
        ] {
            let wrong = ask(text).expect_err(text);
            assert!(wrong.at == at && wrong.message.contains(message), "{text}: {wrong:?}");
        }
    }

    #[test]
    fn long_chains_are_read_and_deep_nests_are_refused() {
        let chain = format!("a{} > 0", " + 1".repeat(1000));
        assert_eq!(ask(&chain), Ok(true));
        let nest = format!("{}a = 3{}", "(".repeat(65), ")".repeat(65));
        assert!(ask(&nest).expect_err("deep").message.contains("nested deeper than 64"));
        assert!(ask(&format!("{}true", "not ".repeat(65))).expect_err("deep").message.contains("nested"));
        assert!(ask(&format!("{}1 = 1", "-".repeat(65))).expect_err("deep").message.contains("nested"));
        assert!(ask(&"a = 3 or ".repeat(1000)).expect_err("long").message.contains("4096"));
    }
}
