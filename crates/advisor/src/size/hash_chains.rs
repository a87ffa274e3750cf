//! The lists behind the buckets: how long on average, how long at worst.
//!
//! A connection is entered twice, by its original and by its reply tuple, each in a bucket that a keyed hash chooses: balls thrown at
//! random into bins. With λ entries a bucket, the length of a list is Poisson(λ); a lookup that finds walks 1 + λ/2 entries on average, and
//! the longest list to be expected is the greatest k with buckets × P(X ≥ k) ≥ 1.
use serde::Serialize;

/// Lengths under the ordinary load and in a full table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HashChains {
    /// Under the ordinary load.
    pub steady: ChainLengths,
    /// With as many connections as max.
    pub full: ChainLengths,
    /// The kernel refuses an entry past a length that it draws anew each time from this range.
    pub limit: [u64; 2],
    /// How this was computed.
    pub formula: &'static str,
}

/// Lengths at one load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ChainLengths {
    /// Entries a bucket.
    pub average: f64,
    /// Entries walked by a lookup that finds.
    pub walked: f64,
    /// The longest list to be expected.
    pub worst: u64,
}

/// Lists longer than this, drawn between the two, are not added to (`chaintoolong`).
pub const CHAIN_LIMIT: [u64; 2] = [50, 79];

/// What [`Lists`] are computed by.
pub const FORMULA: &str = "balls in bins: 2 entries a connection, λ = entries / buckets, length ~ Poisson(λ); a lookup walks 1 + λ/2; \
                           worst = greatest k with buckets × P(X ≥ k) ≥ 1";

/// Above this many entries a bucket the normal distribution is near enough.
const NORMAL_APPROXIMATION_ABOVE: f64 = 1000.0;

/// The lengths for a load and for a full table.
pub fn estimate(steady: u64, max: u64, buckets: u64) -> HashChains {
    HashChains {
        steady: chain_lengths(steady, buckets),
        full: chain_lengths(max, buckets),
        limit: CHAIN_LIMIT,
        formula: FORMULA,
    }
}

/// The lengths of lists when `connections` stand in `buckets` (at least one is taken).
///
/// ```
/// use keepstate_advisor::size::lists::lengths;
/// // Full, with a bucket a connection.
/// let lengths = lengths(65_536, 65_536);
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

/// The greatest k with buckets × P(X ≥ k) ≥ 1: of longer lists, less than one is to be expected.
fn longest_expected(average: f64, buckets: f64) -> u64 {
    if average <= 0.0 {
        return 0;
    }
    if average > NORMAL_APPROXIMATION_ABOVE {
        return (average + (2.0 * average * buckets.ln()).sqrt()).ceil() as u64;
    }
    // P(X = k), in logarithms, for e^-λ may be nothing at all in a number.
    let mut log = -average;
    let mut length = 0_u64;
    let mut masses = Vec::new();
    // Past the mean the masses fall faster than by half at twice the mean: what is then too small for one list is too small in sum.
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
