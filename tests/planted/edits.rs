//! Edits of composed WGSL that are more than a replaced expression.

/// Every occurrence of one expression replaced by another.
pub(crate) fn swap(text: &str, from: &str, to: &str) -> String {
    text.replace(from, to)
}

/// Several of them, one after another; each must be there.
pub(crate) fn swaps(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the text");
        text.replace(from, to)
    })
}

/// The line that follows another is left out: where barriers stand.
pub(crate) fn cut(text: &str, after: &str, line: &str) -> String {
    swap(text, &format!("{after}\n{line}\n"), &format!("{after}\n"))
}

/// Sums of o are kept in binary16.
pub(crate) fn halves_in(text: &str) -> String {
    const HALF: &str = "fn half4(v: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(pack2x16float(v.xy)), unpack2x16float(pack2x16float(v.zw)));
}
";
    let line = |line: &str| match line.split_once(" = fma(vec4<f32>(") {
        Some((sum, rest)) if sum.starts_with("  o") => {
            format!("{sum} = half4(fma(vec4<f32>({});\n", rest.replacen(");", ")", 1))
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).chain([HALF.to_owned()]).collect()
}

/// Masked scores go through the softcap, and nothing masks them afterwards.
pub(crate) fn mask_first(text: &str) -> String {
    let masked = |scaled: &str| format!("select(masked(), {scaled}, kept(p))");
    let text = swap(text, "fn keep(", "fn kept(")
        .replace("score_capped(scaled, p)", &format!("score_capped({}, p)", masked("scaled")))
        .replace(
            "score_capped(score_scaled(product, p), p)",
            &format!("score_capped({}, p)", masked("score_scaled(product, p)")),
        );
    text + "fn keep(p: Position) -> bool { return true; }\n"
}

/// Lanes 0 to 31 of a subgroup are taken to hold 32 vec4s of a row. In smaller subgroups the lane that is named
/// wraps around, as devices do that look at its low bits only.
pub(crate) fn subgroups_of_32(text: &str) -> String {
    let digits = |s: &str| s.chars().take_while(char::is_ascii_digit).collect::<String>().parse();
    let fetch: u32 = match text.split_once("const FETCH: u32 = ") {
        Some((_, rest)) => digits(rest).unwrap_or(32),
        None => 32,
    };
    let groups = 32 / fetch;
    let line = |line: &str| {
        let name = line.strip_prefix("  let y").and_then(|rest| digits(rest).ok());
        match name {
            Some(y) if y % groups != 0 => format!("  let y{y} = y{};\n", y - y % groups),
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}
