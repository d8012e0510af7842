package spool

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// journal has the outcomes of settled envelopes on disk, for the next start: files of records, the oldest of which are removed.
// It is written now and then and nobody waits for it; before a segment is removed it is synced. What it cannot write is
// forgotten: then a receipt is not known after a restart.
type journal struct {
	disk disk
	log  *slog.Logger
	age  time.Duration
	max  int // outcomes in the files that are kept, at least

	mu    sync.Mutex
	buf   []byte // records that are not written yet, without salt
	sums  []unsealed
	spare []byte

	writing  sync.Mutex // held while files are touched
	file     file       // nil before the first and after a failure
	format   format
	files    []journalFile // oldest first; the last is the file
	last     uint64        // number of the last file
	unsynced bool
	failed   bool
}

// journalFile is one that is kept.
type journalFile struct {
	name     string
	outcomes int
	newest   int64 // Unix time in nanoseconds
}

// unsealed is a record in a buffer that has no salt yet.
type unsealed struct {
	start int
	sum   uint32
}

// maxUnwritten bounds what waits for a disk that takes no writes.
const maxUnwritten = 4 << 20

// note keeps an outcome for the next flush.
func (j *journal) note(o Outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.buf) > maxUnwritten {
		return
	}
	start := len(j.buf)
	j.buf = o.appendTo(beginRecord(j.buf, kindOutcome, 0))
	j.sums = append(j.sums, unsealed{start, endRecord(j.buf, start, nil)})
}

// flush writes what was noted, and syncs it if durable.
func (j *journal) flush(durable bool) {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	buf, sums := j.buf, j.sums
	j.buf, j.sums = j.spare[:0], nil
	j.mu.Unlock()
	err := j.put(buf, sums, durable)
	j.spare = buf[:0]
	if err == nil {
		j.failed = false
		return
	}
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
	if !j.failed {
		j.failed = true
		j.log.Error("what became of some envelopes cannot be written, and their receipts are not known after a restart", "error", err)
	}
}

func (j *journal) put(buf []byte, sums []unsealed, durable bool) error {
	if len(sums) > 0 {
		if j.file == nil || j.files[len(j.files)-1].outcomes >= max(1, j.max/8) {
			if err := j.begin(); err != nil {
				return err
			}
		}
		for _, one := range sums {
			sealRecord(buf[one.start:], one.sum, j.format.salt)
		}
		current := &j.files[len(j.files)-1]
		current.outcomes += len(sums)
		current.newest = time.Now().UnixNano()
		j.unsynced = true
		if _, err := j.file.Write(buf); err != nil {
			return err
		}
	}
	if !durable || !j.unsynced || j.file == nil {
		return nil
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.unsynced = false
	return nil
}

// begin begins another file, and removes what is too old.
func (j *journal) begin() error {
	if j.file != nil {
		if err := errors.Join(j.file.Sync(), j.file.Close()); err != nil {
			j.file = nil
			return err
		}
		j.file = nil
	}
	name := fmt.Sprintf("%016d.outcomes", j.last+1)
	f, err := create(j.disk, name)
	if err != nil {
		return err
	}
	j.last++
	header := append([]byte(segmentMagic), make([]byte, 8)...)
	rand.Read(header[len(segmentMagic):])
	if _, err := f.Write(header); err != nil {
		return errors.Join(err, f.Close(), j.disk.Remove(name))
	}
	j.file, j.format = f, formatOf(header)
	j.files = append(j.files, journalFile{name: name})
	j.trim()
	return nil
}

// trim removes the files that are not needed for as many outcomes, or as old ones, as are remembered.
func (j *journal) trim() {
	later, now := 0, time.Now().UnixNano()
	for i := len(j.files) - 1; i >= 0; i-- {
		old := i < len(j.files)-1 && now-j.files[i].newest > int64(j.age)
		if later < j.max && !old {
			later += j.files[i].outcomes
			continue
		}
		for _, f := range j.files[:i+1] {
			_ = j.disk.Remove(f.name) // one that is left is removed after the next start
		}
		j.files = slices.Delete(j.files, 0, i+1)
		return
	}
}

func (j *journal) close() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	if j.file == nil {
		return nil
	}
	f := j.file
	j.file = nil
	return f.Close()
}

// openJournal reads what is there into an index. Nothing is written to those files any more.
func openJournal(d disk, x *index, log *slog.Logger) (*journal, error) {
	j := &journal{disk: d, log: log, age: x.age, max: x.max}
	names, err := d.List()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		var number uint64
		if _, err := fmt.Sscanf(name, "%d.outcomes", &number); err != nil || name != fmt.Sprintf("%016d.outcomes", number) {
			continue
		}
		j.last = max(j.last, number)
		found, err := readOutcomes(d, name, x.restore)
		if err != nil {
			return nil, err
		}
		j.files = append(j.files, found)
	}
	j.trim()
	return j, nil
}

// readOutcomes calls each for the outcomes of a file.
func readOutcomes(d disk, name string, each func(*Outcome)) (found journalFile, err error) {
	found.name = name
	f, err := d.Open(name)
	if err != nil {
		return found, err
	}
	defer f.Close()
	size, format, err := header(f)
	if err != nil || format.version == 0 {
		return found, err
	}
	_, err = format.scan(f, size, func(_ int64, content []byte) {
		if o, ok := parseOutcome(content[contentHeader:]); ok && content[0] == kindOutcome {
			found.outcomes++
			found.newest = max(found.newest, o.Settled.UnixNano())
			each(o)
		}
	})
	return found, err
}

// header reads a file's size and header.
func header(f file) (size int64, _ format, err error) {
	size, err = f.Size()
	if err != nil || size < int64(segmentHeader) {
		return size, format{}, err
	}
	data := make([]byte, segmentHeader)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return size, format{}, err
	}
	return size, formatOf(data), nil
}

func (o *Outcome) appendTo(buf []byte) []byte {
	buf = append(buf, byte(o.State))
	buf = binary.BigEndian.AppendUint64(buf, uint64(o.Accepted.UnixNano()))
	buf = binary.BigEndian.AppendUint64(buf, uint64(o.Settled.UnixNano()))
	buf = append(buf, o.SHA256[:]...)
	for _, text := range []string{o.ID, o.KeyID, o.Service, o.Cluster, shorten(o.Reason)} {
		buf = appendText(buf, text)
	}
	return buf
}

// maxReason is the octets of a reason that are remembered; the dead letter has it whole.
const maxReason = 512

func shorten(reason string) string { return reason[:min(len(reason), maxReason)] }

// parseOutcome reads what appendTo has written.
func parseOutcome(data []byte) (*Outcome, bool) {
	o := new(Outcome)
	if len(data) < 17+len(o.SHA256) {
		return nil, false
	}
	o.State = State(data[0])
	o.Accepted = time.Unix(0, int64(binary.BigEndian.Uint64(data[1:])))
	o.Settled = time.Unix(0, int64(binary.BigEndian.Uint64(data[9:])))
	data = data[17+copy(o.SHA256[:], data[17:]):]
	for _, text := range []*string{&o.ID, &o.KeyID, &o.Service, &o.Cluster, &o.Reason} {
		value, rest, ok := cutText(data)
		if !ok {
			return nil, false
		}
		*text, data = string(value), rest
	}
	return o, o.State == Delivered || o.State == DeadLettered
}
