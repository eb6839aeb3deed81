//! fasts3: an S3 bucket as a local file system at local speed, with no FUSE.
//!
//! A userspace NFSv3 server answers every lookup and read from a local cache directory and asks S3
//! *behind* the answer whether it is still fresh. The rooms, and who may call whom, top to bottom:
//!
//! ```text
//! rpc/ -> nfs/ -> fs/ -> index/, content/
//!                  |  (a cold read awaits a fetch)
//!              revalidate/ -> store/ -> S3
//!              writeback/  -> store/ -> S3   (behind the answer: drains the journal)
//! ```

pub mod access;
pub mod admin;
pub mod cli;
pub mod config;
pub mod content;
pub mod crash;
pub mod fs;
pub mod fsck;
pub mod index;
pub mod locks;
pub mod mount;
pub mod nfs;
pub mod notify;
pub mod positioned;
pub mod revalidate;
pub mod rpc;
pub mod s3server;
pub mod server;
pub mod store;
pub mod types;
pub mod writeback;
