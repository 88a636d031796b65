//! The three system call filters of the sandbox, for x86_64.
//!
//! They allow by default and refuse by list: a build is a stranger's program, and an unknown harmless call must not break it; the
//! kernel surface that has no place in a build is what is taken away. Sources: Flatpak's block list (`flatpak-run.c`) and socket
//! family list, Nix's filter of set-id bits. Bubblewrap installs all three; the kernel applies the strictest answer.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// The filters as the kernel reads them, ready to be handed to bubblewrap.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    programs: [Vec<u8>; 3],
}

impl Filters {
    /// Compiles the filters. Fails only when the lists below contradict themselves.
    pub(super) fn compile() -> Result<Self, seccompiler::Error> {
        Ok(Self { programs: [encode(&forbidden()?), encode(&unknown()?), encode(&foreign_numbers())] })
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = &[u8]> {
        self.programs.iter().map(Vec::as_slice)
    }
}

/// Calls that have no business in a build: refused with `EPERM`.
const FORBIDDEN: &[i64] = &[
    libc::SYS_syslog,
    libc::SYS_uselib,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_move_pages,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_migrate_pages,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_open_by_handle_at,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_fanotify_init,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_vhangup,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
];

/// Calls that must look absent (`ENOSYS`), so that programs fall back to calls whose arguments a filter can see.
const UNKNOWN: &[i64] = &[
    // Its flags lie in memory, out of a filter's sight; every libc falls back to `clone`.
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_memfd_secret,
    libc::SYS_fchmodat2,
    // `setxattrat` (Linux 6.13) and `open_tree_attr` (6.15): newer spellings of what is refused above.
    463,
    467,
];

const CLONE_NEWUSER: u64 = 0x1000_0000;
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541C;
const SET_ID_BITS: [u64; 2] = [0o4000, 0o2000];
const SOCKET_FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
/// Set in the number of every x32 call (`__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 0x4000_0000;

fn forbidden() -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.iter().map(|&number| (number, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![when([masked(0, CLONE_NEWUSER)?])?]);
    rules.insert(
        libc::SYS_ioctl,
        vec![when([compare(1, SeccompCmpOp::Eq, TIOCSTI)?])?, when([compare(1, SeccompCmpOp::Eq, TIOCLINUX)?])?],
    );
    for (number, mode_argument) in [(libc::SYS_chmod, 1), (libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2)] {
        let each_bit = SET_ID_BITS.into_iter().map(|bit| when([masked(mode_argument, bit)?]));
        rules.insert(number, each_bit.collect::<Result<_, _>>()?);
    }
    // A network namespace does not cover every family: AF_VSOCK reaches the hypervisor.
    let other_family =
        SOCKET_FAMILIES.into_iter().map(|family| compare(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())));
    rules.insert(libc::SYS_socket, vec![when(other_family.collect::<Result<Vec<_>, _>>()?)?]);
    filter(rules, libc::EPERM)
}

fn unknown() -> Result<BpfProgram, seccompiler::Error> {
    filter(UNKNOWN.iter().map(|&number| (number, Vec::new())).collect(), libc::ENOSYS)
}

/// Kills callers of x32 numbers, which the lists above, made of native numbers, would let pass. Callers of the i386 entry are
/// killed by the architecture check that `seccompiler` puts before the other two.
fn foreign_numbers() -> BpfProgram {
    const NUMBER_OFFSET: u32 = 0;
    let statement = |code: u32, jt, jf, k| sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k };
    vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER_OFFSET),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32_BIT),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, seccompiler::Error> {
    let refusal = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, TargetArch::x86_64)?;
    Ok(BpfProgram::try_from(filter)?)
}

fn when(conditions: impl Into<Vec<SeccompCondition>>) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(conditions.into())?)
}

fn masked(argument: u8, bits: u64) -> Result<SeccompCondition, seccompiler::Error> {
    compare(argument, SeccompCmpOp::MaskedEq(bits), bits)
}

/// The kernel looks at the low 32 bits of all arguments compared here, so the filter must too.
fn compare(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

fn encode(program: &[sock_filter]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_filters_compile_and_fit_the_kernel() {
        let filters = Filters::compile().unwrap();
        let instructions: Vec<usize> = filters.programs().map(|program| program.len() / 8).collect();
        assert_eq!(instructions.len(), 3);
        assert_eq!(instructions[2], 4);
        // BPF_MAXINSNS
        assert!(instructions.iter().all(|&count| count > 0 && count <= 4096), "{instructions:?}");
    }

    #[test]
    fn no_call_is_in_two_lists() {
        assert!(FORBIDDEN.iter().all(|number| !UNKNOWN.contains(number)));
    }
}
