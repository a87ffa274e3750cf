//! Lengths of the hash chains: on average and at worst.
//!
//! A connection is entered twice, by its original and by its reply tuple, each in a bucket that a keyed hash chooses: balls thrown at
//! random into bins. With λ entries a bucket, the length of a chain is Poisson(λ); a successful lookup walks 1 + λ/2 entries on average, and
//! the longest expected chain is the greatest k with buckets × P(X ≥ k) ≥ 1.
use serde::Serialize;

/// Lengths under the normal load and with a full table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HashChains {
    /// Under the normal load.
    pub steady: ChainLengths,
    /// With a full table.
    pub full: ChainLengths,
    /// The kernel refuses an insert above a length drawn at random from this range.
    pub limit: [u64; 2],
    /// The formula.
    pub formula: &'static str,
}

/// Lengths at one load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ChainLengths {
    /// Entries per bucket.
    pub average: f64,
    /// Entries walked by a successful lookup.
    pub walked: f64,
    /// The longest expected chain.
    pub worst: u64,
}

/// Chains longer than a number drawn from this range take no more entries (`chaintoolong`).
pub const CHAIN_LIMIT: [u64; 2] = [50, 79];

/// The formula of [`HashChains`].
pub const FORMULA: &str = "balls in bins: 2 entries a connection, λ = entries / buckets, length ~ Poisson(λ); a lookup walks 1 + λ/2; \
                           worst = greatest k with buckets × P(X ≥ k) ≥ 1";

/// Above this many entries per bucket the normal distribution is close enough.
const NORMAL_APPROXIMATION_ABOVE: f64 = 1000.0;

/// The chain lengths for a load and for a full table.
pub fn estimate(steady: u64, max: u64, buckets: u64) -> HashChains {
    HashChains {
        steady: chain_lengths(steady, buckets),
        full: chain_lengths(max, buckets),
        limit: CHAIN_LIMIT,
        formula: FORMULA,
    }
}

/// The chain lengths of `connections` in `buckets` (at least one).
///
/// ```
/// use keepstate_advisor::size::hash_chains::chain_lengths;
/// // A full table with one bucket per connection.
/// let lengths = chain_lengths(65_536, 65_536);
/// assert_eq!((lengths.average, lengths.walked), (2.0, 2.0));
/// assert!((10..=12).contains(&lengths.worst));
/// ```
pub fn chain_lengths(connections: u64, buckets: u64) -> ChainLengths {
    let buckets = buckets.max(1) as f64;
    let average = connections as f64 * 2.0 / buckets;
    ChainLengths {
        average,
        walked: if connections == 0 { 0.0 } else { 1.0 + average / 2.0 },
        worst: longest_expected(average, buckets),
    }
}

/// The greatest k with buckets × P(X ≥ k) ≥ 1: fewer than one longer chain is expected.
fn longest_expected(average: f64, buckets: f64) -> u64 {
    if average <= 0.0 {
        return 0;
    }
    if average > NORMAL_APPROXIMATION_ABOVE {
        return (average + (2.0 * average * buckets.ln()).sqrt()).ceil() as u64;
    }
    // P(X = k) as a logarithm, because e^-λ may underflow.
    let mut log = -average;
    let mut length = 0_u64;
    let mut masses = Vec::new();
    // Above twice the mean each mass is less than half of the one before: the rest of the sum is negligible too.
    while (length as f64) < 2.0 * average + 2.0 || (log + buckets.ln()) > -16.0 {
        masses.push(log.exp());
        length += 1;
        log += (average / length as f64).ln();
    }
    let mut tail = 0.0;
    for (length, mass) in masses.iter().enumerate().rev() {
        tail += mass;
        if tail * buckets >= 1.0 {
            return length as u64;
        }
    }
    0
}
