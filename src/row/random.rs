//! Random numbers that are a function of a seed, a row and a place in it: Philox4x64-10 (Salmon et al., "Parallel random
//! numbers: as easy as 1, 2, 3", SC '11).
//!
//! Which thread draws a number, and what was drawn before, changes nothing. The numbers of row r are those of NumPy's
//! `Generator(Philox(key=seed, counter=r << 64)).random()`.

const ROUNDS: usize = 10;
const MULTIPLIERS: [u64; 2] = [0xD2E7_470E_E14C_6C93, 0xCA5A_8263_9512_1157];
const WEYL: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B];

/// Four numbers of 64 bits.
fn philox(mut counter: [u64; 4], seed: u64) -> [u64; 4] {
    let mut key = [seed, 0];
    for _ in 0..ROUNDS {
        let first = u128::from(MULTIPLIERS[0]) * u128::from(counter[0]);
        let second = u128::from(MULTIPLIERS[1]) * u128::from(counter[2]);
        counter = [
            (second >> 64) as u64 ^ counter[1] ^ key[0],
            second as u64,
            (first >> 64) as u64 ^ counter[3] ^ key[1],
            first as u64,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// Fills `numbers` with those of a row, uniform from 0 to below 1.
pub(super) fn fill_uniform(numbers: &mut [f64], seed: u64, row: u64) {
    /// 2^−53.
    const UNIT: f64 = f64::EPSILON / 2.0;
    // NumPy counts up before it computes.
    for (count, numbers) in (1..).zip(numbers.chunks_mut(4)) {
        for (number, bits) in numbers.iter_mut().zip(philox([count, row, 0, 0], seed)) {
            *number = (bits >> 11) as f64 * UNIT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_numpy() {
        // np.random.Generator(np.random.Philox(key=7, counter=3 << 64)).random(6)
        let mut numbers = [0.0; 6];
        fill_uniform(&mut numbers, 7, 3);
        assert_eq!(numbers, NUMPY);
    }

    const NUMPY: [f64; 6] = [
        0.439_002_230_900_449_76,
        0.165_658_688_243_542_9,
        0.982_304_700_409_24,
        0.464_655_449_289_927_97,
        0.369_071_458_569_675_94,
        0.053_945_310_481_585_24,
    ];
}
