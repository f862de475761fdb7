//! The one in the middle, and the last.

/// The median of times, in which those that never come are the longest: of an even number the mean of the two in the middle.
/// `None` when half of them never come, or there are none.
pub fn middle(times: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    middle_and_last(times).0
}

/// The median of times, and the longest; `None` when that never comes.
pub fn middle_and_last(times: impl IntoIterator<Item = Option<f64>>) -> (Option<f64>, Option<f64>) {
    let mut sorted: Vec<f64> = times.into_iter().map(|time| time.unwrap_or(f64::INFINITY)).collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(&last), half) = (sorted.last(), sorted.len() / 2) else { return (None, None) };
    let middle = if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
    (Some(middle).filter(|time| time.is_finite()), Some(last).filter(|time| time.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_comes_is_the_last() {
        assert_eq!(middle_and_last([Some(3.0), Some(1.0), Some(2.0)]), (Some(2.0), Some(3.0)));
        assert_eq!(middle_and_last([Some(3.0), None, Some(1.0), Some(2.0)]), (Some(2.5), None));
        assert_eq!(middle_and_last([None, Some(1.0)]), (None, None));
        assert_eq!(middle_and_last([None, None, Some(1.0)]), (None, None));
        assert_eq!(middle_and_last([]), (None, None));
        assert_eq!(middle([Some(1.0), Some(4.0)]), Some(2.5));
    }
}
