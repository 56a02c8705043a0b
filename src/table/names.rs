//! Column names in expressions: dotted names get the quotes that SQL wants, unknown names get suggestions.

use super::query::QueryError;

/// Longer expressions are refused: none written by hand comes near.
const LONGEST: usize = 10_000;
/// Deeper nesting of parentheses is refused, long before a parser would run out of stack.
const DEEPEST: usize = 64;
/// Longer chains of operators are refused: each is a level of the tree that the table library walks, 3,000 exhausted its stack.
const MOST_OPERATORS: usize = 250;

/// A piece of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// Text in single quotes or a name in double quotes, quotes included.
    Quoted(&'a str),
    /// Everything else.
    Plain(&'a str),
}

/// Splits at quotes; a doubled quote inside quotes stays inside.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(from) = rest.find(['\'', '"']) {
        let (plain, quoted) = rest.split_at(from);
        pieces.push(Piece::Plain(plain));
        let quote = quoted.as_bytes()[0];
        let bytes = quoted.as_bytes();
        let mut at = 1;
        loop {
            match bytes.get(at) {
                None => return Err(format!("the quote {} is never closed", quote as char)),
                Some(byte) if *byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
                Some(byte) if *byte == quote => break,
                Some(_) => at += 1,
            }
        }
        let (inside, after) = quoted.split_at(at + 1);
        pieces.push(Piece::Quoted(inside));
        rest = after;
    }
    pieces.push(Piece::Plain(rest));
    Ok(pieces)
}

/// Refuses what is no single expression: unbalanced quotes or parentheses, `;`, comments, absurd length or depth.
pub fn check_expression(text: &str) -> Result<(), String> {
    for piece in pieces(text)? {
        let Piece::Plain(plain) = piece else { continue };
        if plain.contains(';') || plain.contains("--") || plain.contains("/*") {
            return Err("`;` and comments have no place in an expression".into());
        }
    }
    check_query(text)
}

/// Refuses what no query over the tables of a run is: unbalanced quotes or parentheses, absurd length, depth or chains, and functions
/// that open files.
pub fn check_query(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("it is {} bytes long, more than {LONGEST}", text.len()));
    }
    let (mut depth, mut operators) = (0usize, 0usize);
    for piece in pieces(text)? {
        let Piece::Plain(plain) = piece else { continue };
        for byte in plain.bytes() {
            match byte {
                b'(' if depth == DEEPEST => return Err(format!("parentheses nest deeper than {DEEPEST}")),
                b'(' => depth += 1,
                b')' => depth = depth.checked_sub(1).ok_or("a parenthesis is closed that was never opened")?,
                b'+' | b'-' | b'*' | b'/' | b'%' | b'=' | b'<' | b'>' | b'|' | b'!' | b':' => operators += 1,
                _ => {}
            }
        }
        for word in plain.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            let word = word.to_ascii_lowercase();
            if word.starts_with("read_") {
                return Err(format!("`{word}` opens files, and a question reads the tables of its run alone"));
            }
            let joins = ["and", "or", "not", "case", "when", "union", "intersect", "except", "join", "is", "select"];
            operators += joins.contains(&word.as_str()) as usize;
        }
        if operators > MOST_OPERATORS {
            return Err(format!("it has more than {MOST_OPERATORS} operators"));
        }
    }
    if depth > 0 { Err("a parenthesis is never closed".into()) } else { Ok(()) }
}

/// Puts double quotes around the dotted column names that stand without: `toy.d_hidden > 5` becomes
/// `"toy.d_hidden" > 5`. `table.column` loses its table if that is `rows`.
///
/// # Errors
/// With `strict`, a dotted name that is no column.
pub fn quote_dotted(text: &str, columns: &[&str], strict: bool) -> Result<String, QueryError> {
    let unreadable = |reason| QueryError::Expression { place: "an expression", text: text.to_string(), reason };
    let mut dotted: Vec<&str> = columns.iter().copied().filter(|name| name.contains('.')).collect();
    // The longest first, so that of `sae.topk` and `sae.topk.k` the whole name is taken.
    dotted.sort_by_key(|name| (std::cmp::Reverse(name.len()), *name));
    let mut quoted = String::new();
    for piece in pieces(text).map_err(unreadable)? {
        match piece {
            Piece::Quoted(inside) => quoted.push_str(inside),
            Piece::Plain(plain) => quote_plain(plain, &dotted, columns, strict, &mut quoted)?,
        }
    }
    Ok(quoted)
}

fn quote_plain(
    plain: &str,
    dotted: &[&str],
    columns: &[&str],
    strict: bool,
    out: &mut String,
) -> Result<(), QueryError> {
    let mut rest = plain;
    while let Some(first) = rest.chars().next() {
        if !(first.is_alphabetic() || first == '_') {
            // A number is taken whole, so that the `e` of 1.5e3 does not begin a name.
            let end = if first.is_ascii_digit() { number_end(rest) } else { first.len_utf8() };
            match plain_decimal(&rest[..end]) {
                Some(decimal) if !out.ends_with('.') => out.push_str(&decimal),
                _ => out.push_str(&rest[..end]),
            }
            rest = &rest[end..];
            continue;
        }
        let known = dotted.iter().find(|name| rest.starts_with(**name) && ends_there(&rest[name.len()..]));
        let end = known.map_or_else(|| word_end(rest), |name| name.len());
        let word = &rest[..end];
        let bare = word.strip_prefix("rows.").filter(|bare| columns.contains(bare));
        match (known, bare) {
            (Some(name), _) => push_quoted(out, name),
            (None, Some(bare)) if strict => push_quoted(out, bare),
            (None, None) if strict && word.contains('.') => return Err(unknown(word, columns)),
            _ => out.push_str(word),
        }
        rest = &rest[end..];
    }
    Ok(())
}

fn push_quoted(out: &mut String, name: &str) {
    out.push('"');
    out.push_str(&name.replace('"', "\"\""));
    out.push('"');
}

/// Length of the word of letters, digits, `_` and inner dots at the start.
fn word_end(text: &str) -> usize {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(text.len());
    text[..end].trim_end_matches('.').len().max(1)
}

/// Length of the number at the start, with the sign of its exponent.
fn number_end(text: &str) -> usize {
    let end = word_end(text);
    let digits = |after: &str| after.bytes().take_while(u8::is_ascii_digit).count();
    let signed = text[end..].strip_prefix(['-', '+']).map(digits).filter(|digits| *digits > 0);
    match (text[..end].strip_suffix(['e', 'E']), signed) {
        (Some(mantissa), Some(digits)) if mantissa.parse::<f64>().is_ok() => end + 1 + digits,
        _ => end,
    }
}

/// A number with an exponent as one without, which is all that the SQL parser reads; none where there is no exponent.
fn plain_decimal(text: &str) -> Option<String> {
    let number: f64 = text.contains(['e', 'E']).then(|| text.parse().ok())??;
    let decimal = format!("{number}");
    Some(if decimal.contains('.') { decimal } else { format!("{decimal}.0") })
}

/// Whether a name that ends here ends at a word's end.
fn ends_there(after: &str) -> bool {
    !after.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
}

/// The error for a name that is no column.
pub fn unknown(name: &str, columns: &[&str]) -> QueryError {
    QueryError::UnknownColumn { name: name.to_string(), near: near(name, columns) }
}

/// Up to three of the candidates that a reader may have meant, the nearest first: those that end in the same word, and
/// those a few typing errors away.
pub fn near(name: &str, candidates: &[&str]) -> Vec<String> {
    let wanted = name.to_lowercase();
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
    let score = |candidate: &&str| {
        let known = candidate.to_lowercase();
        let whole = strsim::damerau_levenshtein(&wanted, &known);
        let tail = 1 + strsim::damerau_levenshtein(&last(&wanted), &last(&known));
        let distance = whole.min(tail);
        (distance <= 1 + wanted.chars().count() / 4).then(|| (distance, candidate.to_string()))
    };
    let mut scored: Vec<(usize, String)> = candidates.iter().filter_map(score).collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Splits `a, avg(b, c), 'd, e'` at the commas that stand outside quotes and parentheses.
pub fn split_list(text: &str) -> Vec<String> {
    let Ok(pieces) = pieces(text) else { return vec![text.trim().to_string()] };
    let mut items = vec![String::new()];
    let mut depth = 0i64;
    for piece in pieces {
        let mut push = |part: &str| items.last_mut().expect("never empty").push_str(part);
        match piece {
            Piece::Quoted(inside) => push(inside),
            Piece::Plain(plain) => {
                for c in plain.chars() {
                    depth += i64::from(c == '(') - i64::from(c == ')');
                    if c == ',' && depth == 0 {
                        items.push(String::new());
                    } else {
                        items.last_mut().expect("never empty").push(c);
                    }
                }
            }
        }
    }
    items.into_iter().map(|item| item.trim().to_string()).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 7] = [
        "mcc",
        "data.firing_probability",
        "toy.d_hidden",
        "sae.topk",
        "sae.topk.k",
        "sae.*.n_latents",
        "sae.jump-l0.k",
    ];

    #[test]
    fn dotted_columns_get_quotes_and_nothing_else_changes() {
        for (written, quoted) in [
            ("toy.d_hidden >= 20", "\"toy.d_hidden\" >= 20"),
            ("\"toy.d_hidden\" >= 20", "\"toy.d_hidden\" >= 20"),
            ("mcc > 0.5 and toy.d_hidden-1 < 1.5e3", "mcc > 0.5 and \"toy.d_hidden\"-1 < 1500.0"),
            ("mcc < 1e-6 or mcc > 2.5E+2 - 1e", "mcc < 0.000001 or mcc > 250.0 - 1e"),
            ("mcc_1e-5 < 1-2", "mcc_1e-5 < 1-2"),
            ("sae.topk.k=2 or sae.topk = 1", "\"sae.topk.k\"=2 or \"sae.topk\" = 1"),
            ("sae.*.n_latents * 2", "\"sae.*.n_latents\" * 2"),
            ("avg(sae.jump-l0.k)", "avg(\"sae.jump-l0.k\")"),
            ("detail = 'toy.d_hidden it''s'", "detail = 'toy.d_hidden it''s'"),
            ("rows.mcc + rows.toy.d_hidden", "\"mcc\" + \"toy.d_hidden\""),
            ("0.1 < mcc", "0.1 < mcc"),
            ("größe + mcc", "größe + mcc"),
        ] {
            assert_eq!(quote_dotted(written, &COLUMNS, true).expect("known names"), quoted, "{written}");
        }
    }

    #[test]
    fn an_unknown_dotted_name_is_an_error_with_suggestions() {
        let error = quote_dotted("data.firing_probabilty < 0.1", &COLUMNS, true).expect_err("a typing error");
        let QueryError::UnknownColumn { name, near } = error else { panic!("{error}") };
        assert_eq!((name.as_str(), near), ("data.firing_probabilty", vec!["data.firing_probability".to_string()]));
        assert_eq!(quote_dotted("t.mcc", &COLUMNS, false).expect("an alias of a table"), "t.mcc");
        assert!(quote_dotted("toy.d_hidden.x", &COLUMNS, true).is_err());
    }

    #[test]
    fn near_names_forgive_typing_errors_and_missing_prefixes() {
        assert_eq!(near("d_hidden", &COLUMNS), ["toy.d_hidden"]);
        assert_eq!(near("mmc", &COLUMNS), ["mcc"]);
        assert_eq!(near("MCC", &COLUMNS), ["mcc"]);
        assert!(near("wombat", &COLUMNS).is_empty());
    }

    #[test]
    fn lists_are_split_outside_quotes_and_parentheses() {
        assert_eq!(split_list("a, avg(b, c),'d, e' , \"f,g\""), ["a", "avg(b, c)", "'d, e'", "\"f,g\""]);
        assert!(split_list(" ").is_empty());
    }

    #[test]
    fn what_is_no_single_expression_is_refused() {
        for text in ["(a", "a)", "'a", "\"a", "a; drop table rows", "a -- b", "a /* b */"] {
            assert!(check_expression(text).is_err(), "{text}");
        }
        for text in ["a - -1", "';'", "\"--\"", "((a))", "''''"] {
            assert_eq!(check_expression(text), Ok(()), "{text}");
        }
        let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(check_expression(&nested(DEEPEST)).is_ok() && check_expression(&nested(DEEPEST + 1)).is_err());
        assert!(check_expression(&"a".repeat(LONGEST + 1)).is_err());
    }
}
