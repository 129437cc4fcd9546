//! Figures with their units, as the report and the plots show them.

/// Bytes, in the unit that reads best.
pub(crate) fn bytes(count: usize) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KB", count / 1024),
        _ => format!("{} MB", count / 1_048_576),
    }
}

/// Microseconds, with as many digits as they are worth.
pub(crate) fn us(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// Calls a second, in the unit that reads best.
pub(crate) fn rate(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e5.. => format!("{:.0} k", value / 1e3),
        1e4.. => format!("{:.1} k", value / 1e3),
        _ => grouped(value),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_they_are_worth() {
        let shown =
            [us(0.214), us(23.46), us(1234.5), rate(12_340_000.0), rate(456_000.0), rate(45_600.0), rate(312.0)];
        assert_eq!(shown, ["0.21", "23.5", "1,234", "12.34 M", "456 k", "45.6 k", "312"]);
        assert_eq!([bytes(64), bytes(65_536), bytes(1_048_576)], ["64 B", "64 KB", "1 MB"]);
    }
}
