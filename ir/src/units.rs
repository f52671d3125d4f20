//! Figures for people, as every command prints them.

/// Bytes with a unit, three significant digits.
pub fn bytes(n: u64) -> String {
    let (unit, scale) = match n {
        0..1024 => return format!("{n} B"),
        1024..0x10_0000 => ("KiB", 10),
        0x10_0000..0x4000_0000 => ("MiB", 20),
        _ => ("GiB", 30),
    };
    let value = n as f64 / f64::from(1u32 << scale);
    format!("{value:.*} {unit}", digits(value))
}

/// A rate, three significant digits.
pub fn rate(value: f64) -> String {
    format!("{value:.*}", digits(value))
}

fn digits(value: f64) -> usize {
    match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([bytes(17), bytes(1536), bytes(21 << 20), bytes(300 << 30)], ["17 B", "1.50 KiB", "21.0 MiB", "300 GiB"]);
        assert_eq!([rate(1.2345), rate(251.4), rate(99.96)], ["1.23", "251", "100"]);
    }
}
