package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isochrone/isochrone/router"
)

const (
	batchSize   = 32 // datagrams of one system call; 16 to 128 are equally fast, and a stop of the world waits for one batch
	sockaddrMax = unix.SizeofSockaddrInet6

	// busyBatch is how many datagrams of a batch say that more may have come meanwhile.
	busyBatch = 8

	// idleCheck is how often a thread that waits for a question looks whether it is to end.
	idleCheck = 100 * time.Millisecond

	// sendWait is how long answers of a batch may wait for room in the socket's buffer.
	sendWait = 5 * time.Millisecond
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr    unix.Msghdr
	length uint32
	_      [4]byte
}

// udpThread answers the questions of one socket in a thread of its own. It receives without waiting, and only when nothing is there
// it waits in the kernel: the former by a raw system call, which the scheduler does not notice, for else it would take the
// processor away for each batch. It must never wait in a raw call, since the collector would wait for it.
type udpThread struct {
	*worker
	fd      int
	stopped atomic.Bool
	pending sync.WaitGroup // questions that the full path has

	buffers   [batchSize][bufferSize]byte
	addresses [batchSize][sockaddrMax]byte
	inVectors [batchSize]unix.Iovec
	in        [batchSize]mmsghdr
	received  int // datagrams of the last batch
	inquiries [batchSize]inquiry
	from      [batchSize]netip.Addr // invalid for what cannot be answered

	undecided [batchSize]uint8 // the datagrams whose answers are for the router to decide
	asks      [batchSize]router.Ask
	decisions [batchSize]router.Answer

	outVectors [batchSize]unix.Iovec // of the answers
	outFrom    [batchSize]uint8      // which datagram each answers
	queued     int
	out        [batchSize]mmsghdr // a message for each run of answers
	controls   [batchSize]segmentControl
	segmented  bool // runs are handed to the system in one piece
}

// segmentControl is the control message that says how long the pieces are into which the system cuts a message (UDP_SEGMENT, see udp(7)).
type segmentControl struct {
	unix.Cmsghdr
	size uint16
	_    [6]byte
}

const segmentControlSize = int(unsafe.Sizeof(segmentControl{}))

// serveUDP answers the questions of a socket until ctx ends.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	t, err := s.newUDPThread(conn)
	if err != nil {
		return fmt.Errorf("take over a UDP socket: %w", err)
	}
	defer unix.Close(t.fd)
	defer t.pending.Wait() // the full path answers by the same descriptor, whose number may soon be another file's
	defer context.AfterFunc(ctx, func() { t.stopped.Store(true) })()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return t.run()
}

// newUDPThread takes a socket over.
func (s *Server) newUDPThread(conn *net.UDPConn) (*udpThread, error) {
	fd, err := takeSocket(conn)
	if err != nil {
		return nil, err
	}
	t := &udpThread{worker: s.newWorker(s.newShard()), fd: fd, segmented: !s.config.NoSegmentation}
	for i := range t.in {
		t.inVectors[i].Base = &t.buffers[i][0]
		t.inVectors[i].SetLen(bufferSize)
		t.in[i].hdr = unix.Msghdr{Name: &t.addresses[i][0], Namelen: sockaddrMax, Iov: &t.inVectors[i]}
		t.in[i].hdr.SetIovlen(1)
		t.controls[i].Level, t.controls[i].Type = unix.SOL_UDP, unix.UDP_SEGMENT
		t.controls[i].SetLen(unix.CmsgLen(2))
	}
	return t, nil
}

// takeSocket returns a file descriptor of the socket that the runtime's poller does not watch, which would cost a wake-up for each
// datagram; conn is closed.
func takeSocket(conn *net.UDPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if controlErr := raw.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	}); controlErr != nil {
		return 0, controlErr
	}
	if err != nil {
		return 0, err
	}
	conn.Close()
	timeout := unix.NsecToTimeval(int64(idleCheck))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return 0, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func (t *udpThread) run() error {
	for !t.stopped.Load() {
		if err := t.step(); err != nil {
			return err
		}
	}
	return nil
}

// step receives a batch, waiting for it a while, and answers it.
func (t *udpThread) step() error {
	n, errno := t.receive()
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		return nil
	case unix.ECONNREFUSED, unix.ENOBUFS, unix.ENOMEM: // of a datagram that was sent, or for want of memory
		t.counts.unsent.Add(1)
		return nil
	default:
		return fmt.Errorf("receive: %w", errno)
	}
	t.tick()
	heard := t.hear(n)
	for i := range n {
		t.answer(i, heard)
	}
	t.flush() // first, so that who has an answer finds it counted
	t.send()
	for i := range n {
		t.in[i].hdr.Namelen = sockaddrMax
	}
	return nil
}

// receive receives a batch, and waits for one when there is none. Behind a small batch there is likely none.
func (t *udpThread) receive() (int, syscall.Errno) {
	if t.received >= busyBatch {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(t.fd), uintptr(unsafe.Pointer(&t.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EAGAIN {
			t.received = int(n)
			return int(n), errno
		}
	}
	began := time.Now()
	n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(t.fd), uintptr(unsafe.Pointer(&t.in[0])), batchSize, unix.MSG_WAITFORONE, 0, 0)
	if t.received = int(n); errno != 0 {
		t.received = 0
	}
	if errno == unix.EAGAIN && time.Since(began) < idleCheck/2 {
		// Another process that has the socket too, such as our successor, does not want to wait in it.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}}, int(idleCheck/time.Millisecond))
	}
	return int(n), errno
}

// hear reads the datagrams of a batch, and has those decided that are for the router, all at once. It reports false after a panic.
func (t *udpThread) hear(n int) (done bool) {
	defer t.contain()
	for i := range n {
		t.from[i] = t.source(i)
	}
	undecided := 0
	for i := range n {
		q := &t.inquiries[i]
		if !t.from[i].IsValid() || !q.hear(t.serving, t.buffers[i][:t.in[i].length], t.from[i]) {
			continue
		}
		t.undecided[undecided] = uint8(i)
		t.asks[undecided] = router.Ask{Service: q.node.service.id, Family: q.typed.family, Client: q.client}
		undecided++
	}
	if undecided > 0 {
		router.DecideAll(t.serving.view, t.asks[:undecided], t.decisions[:undecided])
	}
	for k, i := range t.undecided[:undecided] {
		t.inquiries[i].decision = t.decisions[k]
	}
	return true
}

// answer answers the i-th datagram of the batch, in place, or gives it to the full path. If the batch has not been heard, it is heard
// by itself.
func (t *udpThread) answer(i int, heard bool) {
	defer t.contain()
	from := t.from[i]
	if !from.IsValid() {
		return
	}
	buffer := t.buffers[i][:]
	t.q = &t.inquiries[i]
	var n int
	if heard {
		n = t.reply(buffer, from, UDP)
	} else {
		n = t.quick(buffer, int(t.in[i].length), from, UDP)
	}
	if n == fuller {
		if t.in[i].hdr.Flags&unix.MSG_TRUNC != 0 {
			return // longer than any question; what is left of it is not one
		}
		t.pending.Add(1)
		if !t.server.enqueue(&job{
			packet: append([]byte(nil), buffer[:t.in[i].length]...), from: from,
			address: append([]byte(nil), t.addresses[i][:t.in[i].hdr.Namelen]...), reply: t.sendOne, done: t.pending.Done,
		}, t.q.node != nil || t.serving.challenges.has(t.q), t.counts) {
			t.pending.Done()
		}
		return
	}
	if n == silent {
		return
	}
	t.outVectors[t.queued].Base = &buffer[0]
	t.outVectors[t.queued].SetLen(n)
	t.outFrom[t.queued] = uint8(i)
	t.queued++
}

// contain makes a panic cost one question.
func (t *udpThread) contain() {
	if p := recover(); p != nil {
		t.counts.panics.Add(1)
		t.server.config.Log.Error("panic while answering a question", "panic", p, "stack", string(debug.Stack()))
	}
}

// source returns the address that the i-th datagram came from; an invalid one is of none that could be answered.
func (t *udpThread) source(i int) netip.Addr {
	a := &t.addresses[i]
	if binary.BigEndian.Uint16(a[2:]) == 0 { // port
		return netip.Addr{}
	}
	switch *(*uint16)(unsafe.Pointer(a)) {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(a[4:8]))
	case unix.AF_INET6:
		return netip.AddrFrom16([16]byte(a[8:24])).Unmap()
	}
	return netip.Addr{}
}

// send sends the answers of the batch. What cannot be sent is lost, as any datagram may be.
func (t *udpThread) send() {
	messages, waited := t.gather(), false
	for sent := 0; sent < messages; {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(t.fd), uintptr(unsafe.Pointer(&t.out[sent])), uintptr(messages-sent), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno == 0:
			sent += int(n)
		case t.out[sent].hdr.Control != nil && (errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EOPNOTSUPP):
			// The way out cannot cut messages. What has been sent of the batch is not sent again.
			t.segmented = false
			first := int((uintptr(unsafe.Pointer(t.out[sent].hdr.Iov)) - uintptr(unsafe.Pointer(&t.outVectors[0]))) / unsafe.Sizeof(t.outVectors[0]))
			t.queued = copy(t.outVectors[:], t.outVectors[first:t.queued])
			copy(t.outFrom[:], t.outFrom[first:])
			messages, sent = t.gather(), 0
		case errno == unix.EAGAIN && !waited: // what is on its way out fills the socket's buffer
			waited = true
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLOUT}}, int(sendWait/time.Millisecond))
		default:
			t.counts.unsent.Add(uint64(t.out[sent].hdr.Iovlen))
			sent++
		}
	}
	t.queued = 0
}

// gather makes messages of the answers: of each run of answers to one address and port that are equally long, but for a shorter one at
// its end, one message, which the system cuts again far below, and of all others one each. It returns how many.
func (t *udpThread) gather() (messages int) {
	for i := 0; i < t.queued; messages++ {
		from, size := t.outFrom[i], t.outVectors[i].Len
		end := i + 1
		for t.segmented && end < t.queued && t.outVectors[end-1].Len == size && t.outVectors[end].Len <= size && t.sameAddress(from, t.outFrom[end]) {
			end++
		}
		m := &t.out[messages]
		m.hdr = unix.Msghdr{Name: &t.addresses[from][0], Namelen: t.in[from].hdr.Namelen, Iov: &t.outVectors[i]}
		m.hdr.SetIovlen(end - i)
		if end > i+1 {
			t.controls[messages].size = uint16(size)
			m.hdr.Control = (*byte)(unsafe.Pointer(&t.controls[messages]))
			m.hdr.SetControllen(segmentControlSize)
		}
		i = end
	}
	return messages
}

// sameAddress reports whether two datagrams came from the same address and port.
func (t *udpThread) sameAddress(a, b uint8) bool {
	if t.in[a].hdr.Namelen == unix.SizeofSockaddrInet4 && t.in[b].hdr.Namelen == unix.SizeofSockaddrInet4 {
		return *(*uint64)(unsafe.Pointer(&t.addresses[a])) == *(*uint64)(unsafe.Pointer(&t.addresses[b]))
	}
	return t.addresses[a] == t.addresses[b]
}

// sendOne sends an answer of the full path, from another thread.
func (t *udpThread) sendOne(packet, address []byte) {
	for {
		_, _, errno := syscall.Syscall6(unix.SYS_SENDTO, uintptr(t.fd), uintptr(unsafe.Pointer(&packet[0])), uintptr(len(packet)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&address[0])), uintptr(len(address)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			t.counts.unsent.Add(1)
		}
		return
	}
}
