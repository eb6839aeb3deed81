//! The Linux kernel's own NFS client, in a small virtual machine (`scripts/vm/vmrun`), over the real server program.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

mod capture;
mod helper;
mod joined;
mod localhost;
mod locks;
mod mount;
mod plain;
mod rig;
mod write;
