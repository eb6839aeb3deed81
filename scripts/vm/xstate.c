/*
 * Preloaded into user-mode-linux. Linux 6.1's UML hands ptrace(SETREGSET, NT_X86_XSTATE) an area of
 * 2696 bytes; a processor with AMX wants its full area and answers EFAULT, so the guest's init dies.
 * Pads the area, keeping only the x87..PKRU state. Harmless on other processors.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { GETREGSET = 0x4204, SETREGSET = 0x4205, XSTATE = 0x202, PEEK_FIRST = 1, PEEK_LAST = 3 };

static size_t full;
static char area[65536] __attribute__((aligned(64)));

static long set_xstate(int req, long pid, struct iovec *in)
{
	struct iovec whole = { area, sizeof area };

	if (!full) {
		if (syscall(SYS_ptrace, (long)GETREGSET, pid, (long)XSTATE, &whole) == 0)
			full = whole.iov_len;
		memset(area, 0, sizeof area);
	}
	if (full <= in->iov_len)
		return syscall(SYS_ptrace, (long)req, pid, (long)XSTATE, in);
	memcpy(area, in->iov_base, in->iov_len);
	*(uint64_t *)(area + 512) &= 0x3ff;
	whole = (struct iovec){ area, full };
	return syscall(SYS_ptrace, (long)req, pid, (long)XSTATE, &whole);
}

long ptrace(int req, ...)
{
	va_list ap;
	va_start(ap, req);
	long pid = va_arg(ap, int);
	void *addr = va_arg(ap, void *), *data = va_arg(ap, void *);
	va_end(ap);

	if (req == SETREGSET && (long)addr == XSTATE)
		return set_xstate(req, pid, data);
	if (req >= PEEK_FIRST && req <= PEEK_LAST) { /* libc returns the word instead of storing it */
		long word, failed = syscall(SYS_ptrace, (long)req, pid, addr, &word);
		return failed < 0 ? failed : word;
	}
	return syscall(SYS_ptrace, (long)req, pid, addr, data);
}
