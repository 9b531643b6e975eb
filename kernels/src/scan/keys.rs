//! The key schedule of AES-128 (FIPS 197 section 5.2), shared by the backends that use AES instructions.

use std::fmt;

/// The eleven round keys of an AES-128 cipher, in the order of encryption.
#[derive(Clone)]
#[repr(align(16))]
pub(super) struct RoundKeys(pub(super) [[u8; 16]; 11]);

impl fmt::Debug for RoundKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoundKeys")
    }
}

impl RoundKeys {
    pub(super) fn new(key: [u8; 16]) -> Self {
        let mut keys = [key; 11];
        let mut round_constant = 1;
        for round in 1..11 {
            let last = keys[round - 1];
            let [.., a, b, c, d] = last;
            let mut word = [b, c, d, a].map(|byte| S_BOX[usize::from(byte)]);
            word[0] ^= round_constant;
            round_constant = double(round_constant);
            for column in 0..4 {
                for row in 0..4 {
                    word[row] ^= last[4 * column + row];
                    keys[round][4 * column + row] = word[row];
                }
            }
        }
        Self(keys)
    }

    pub(super) const fn key(&self) -> &[u8; 16] {
        &self.0[0]
    }
}

/// Multiplication by x in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197 section 4.2.1).
const fn double(byte: u8) -> u8 {
    (byte << 1) ^ if byte & 0x80 == 0 { 0 } else { 0x1b }
}

/// The substitution table: inverse in GF(2^8), then an affine map (FIPS 197 section 5.1.1).
const S_BOX: [u8; 256] = {
    let mut table = [0; 256];
    // 3 generates the multiplicative group; its inverse 0xf6 runs through the inverses at the same time.
    let (mut element, mut inverse) = (1_u8, 1_u8);
    loop {
        table[element as usize] =
            inverse ^ inverse.rotate_left(1) ^ inverse.rotate_left(2) ^ inverse.rotate_left(3) ^ inverse.rotate_left(4) ^ 0x63;
        element ^= double(element);
        // division by 3 is multiplication by 0xf6
        inverse ^= inverse << 1;
        inverse ^= inverse << 2;
        inverse ^= inverse << 4;
        if inverse & 0x80 != 0 {
            inverse ^= 0x09;
        }
        if element == 1 {
            break;
        }
    }
    table[0] = 0x63;
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_of_fips_197_appendix_a() {
        let keys = RoundKeys::new(*b"\x2b\x7e\x15\x16\x28\xae\xd2\xa6\xab\xf7\x15\x88\x09\xcf\x4f\x3c");
        assert_eq!(hex::encode(keys.0[1]), "a0fafe1788542cb123a339392a6c7605");
        assert_eq!(hex::encode(keys.0[10]), "d014f9a8c9ee2589e13f0cc8b6630ca6");
    }
}
