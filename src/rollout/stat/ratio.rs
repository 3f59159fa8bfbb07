//! Whether counts keep the shares that they should, tested after every count.

use statrs::function::gamma::ln_gamma;

/// The logarithm of the evidence against the share `share` of the second of two counts.
///
/// Counts are drawn with unknown shares that have a Dirichlet prior about the right ones, `concentration` rows strong; the
/// evidence is the likelihood under that mixture over the likelihood under the right shares. Under the right ones it is a
/// martingale that begins at 1, so it passes `1 / α` with a probability of at most `α`, ever, and evidence of independent
/// counts multiplies. Source: Lindon and Malek, "Anytime-valid inference for multinomial count data", 2022.
pub fn evidence(counts: [u64; 2], share: f64, concentration: f64) -> f64 {
    let shares = [1.0 - share, share];
    if let Some(wrong) = shares.iter().position(|s| *s <= 0.0) {
        return if counts[wrong] > 0 { f64::INFINITY } else { 0.0 };
    }
    let total = (counts[0] + counts[1]) as f64;
    let mut sum = ln_gamma(concentration) - ln_gamma(concentration + total);
    for (count, share) in counts.iter().zip(shares) {
        let (count, prior) = (*count as f64, concentration * share);
        sum += ln_gamma(prior + count) - ln_gamma(prior) - count * share.ln();
    }
    sum
}
