// idlehog: takes what is left of a core, and says how much that was: the rest is what the core has done, with the work of
// interrupts that no process is billed for. It runs with the policy SCHED_IDLE, for which it must be in the scheduling group
// (session) of the server that it measures. Usage: idlehog FILE. The file has two words of 64 bits: 1 while it shall run, and
// the nanoseconds that it got. It ends with the leader of its session.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { GAP_NS = 700 }; // between two looks at the clock: below an interrupt or a change of process, above the look itself

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char **argv) {
	if (argc != 2) {
		fprintf(stderr, "usage: idlehog FILE\n");
		return 2;
	}
	struct sched_param none = {0};
	int fd = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 16) != 0 || sched_setscheduler(0, SCHED_IDLE, &none) != 0) {
		perror("idlehog");
		return 1;
	}
	_Atomic uint64_t *words = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (words == MAP_FAILED) {
		perror("idlehog: mmap");
		return 1;
	}
	pid_t leader = getsid(0);
	while (kill(leader, 0) == 0) {
		struct timespec second = {.tv_sec = 1};
		if (atomic_load(&words[0]) == 0) // little-endian: the futex is the lower half
			syscall(SYS_futex, words, FUTEX_WAIT, 0, &second, NULL, 0);
		uint64_t got = atomic_load(&words[1]);
		int64_t last = now(), end = last + 1000000000; // then looks at the leader again
		while (last < end && atomic_load_explicit(&words[0], memory_order_relaxed) == 1) {
			int64_t at = now();
			if (at - last < GAP_NS)
				atomic_store_explicit(&words[1], got += at - last, memory_order_relaxed);
			last = at;
		}
	}
}
