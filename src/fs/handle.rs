//! File handles: 24 bytes that name an inode for ever and that only this cache's key can make.
//!
//! ```text
//! 0  1  format: 1
//! 1  7  zero
//! 8  8  fileid, big endian
//! 16 8  SipHash-2-4 of the first 16 bytes under the key of the cache's identity
//! ```
//! A fileid is never re-used, so there is no generation. The key is made once per cache directory:
//! handles survive restarts and upgrades, and a forged or foreign one is BADHANDLE, not a guess.

use std::fmt;
use std::hash::Hasher;

use nfsserve::nfs::nfsstat3;
use siphasher::sip::SipHasher24;

/// Length of every handle, in bytes.
pub const HANDLE_BYTES: usize = 24;

const FORMAT: u8 = 1;
const SIGNED_BYTES: usize = 16;

/// Makes and checks handles.
#[derive(Clone)]
pub struct HandleKey {
    key: [u8; 16],
    fsid: u64,
}

impl HandleKey {
    /// `key` is secret; `fsid` is what attributes tell clients to tell file systems apart.
    pub fn new(key: [u8; 16], fsid: u64) -> HandleKey {
        HandleKey { key, fsid }
    }

    /// The file system's id.
    pub(super) fn fsid(&self) -> u64 {
        self.fsid
    }

    /// The handle of `id`.
    pub(super) fn encode(&self, id: u64) -> [u8; HANDLE_BYTES] {
        let mut handle = [0; HANDLE_BYTES];
        handle[0] = FORMAT;
        handle[8..SIGNED_BYTES].copy_from_slice(&id.to_be_bytes());
        let tag = self.tag(&handle[..SIGNED_BYTES]);
        handle[SIGNED_BYTES..].copy_from_slice(&tag.to_be_bytes());
        handle
    }

    /// The fileid of a handle that this key made.
    /// # Errors
    /// BADHANDLE for any other.
    pub(super) fn decode(&self, handle: &[u8]) -> Result<u64, nfsstat3> {
        let (signed, tag) = handle.split_at_checked(SIGNED_BYTES).ok_or(nfsstat3::NFS3ERR_BADHANDLE)?;
        if tag != self.tag(signed).to_be_bytes() {
            return Err(nfsstat3::NFS3ERR_BADHANDLE);
        }
        let id = signed.last_chunk::<8>().expect("a signed part is 16 bytes");
        Ok(u64::from_be_bytes(*id))
    }

    fn tag(&self, signed: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(signed);
        hasher.finish()
    }
}

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleKey(fsid={:#x}, key=secret)", self.fsid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> HandleKey {
        HandleKey::new(*b"0123456789abcdef", 7)
    }

    #[test]
    fn a_handle_names_its_inode() {
        for id in [1, 2, 0xdead_beef, u64::MAX] {
            assert_eq!(key().decode(&key().encode(id)).ok(), Some(id));
        }
    }

    #[test]
    fn a_handle_with_any_bit_changed_is_refused() {
        let handle = key().encode(42);
        for bit in 0..HANDLE_BYTES * 8 {
            let mut forged = handle;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(key().decode(&forged), Err(nfsstat3::NFS3ERR_BADHANDLE)), "bit {bit}");
        }
    }

    #[test]
    fn a_handle_of_another_cache_or_length_is_refused() {
        let other = HandleKey::new(*b"fedcba9876543210", 7);
        assert!(key().decode(&other.encode(42)).is_err());
        for len in 0..64 {
            assert!(key().decode(&vec![1; len]).is_err());
        }
        let mut long = key().encode(42).to_vec();
        long.push(0);
        assert!(key().decode(&long).is_err());
    }
}
