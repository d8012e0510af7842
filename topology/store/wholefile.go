package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// checksumPrefix begins the last line of a file. What stands in front of the line has that SHA-256.
const checksumPrefix = "# sha256 "

// checksumLine is how long that line is.
const checksumLine = len(checksumPrefix) + 2*sha256.Size + 1

// writeWhole writes a file with a checksum, which its owner alone can read, whole or not at all: after a crash it is the new one or the
// one before. When it returns without an error, the new one is on disk.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	temporary := fmt.Sprintf("%s.%d.tmp", path, os.Getpid()) // two processes may write it while one replaces the other
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary) // which may have got its name already
		}
	}()
	hash := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(file, hash), 64<<10)
	if err = write(out); err == nil {
		err = out.Flush()
	}
	if err == nil {
		_, err = fmt.Fprintf(file, "%s%x\n", checksumPrefix, hash.Sum(nil))
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = os.Rename(temporary, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder has the names in a folder on disk.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// readWhole reads what writeWhole has written. The error is ErrDamaged if it is something else.
func readWhole(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	content, line := text[:max(len(text)-checksumLine, 0)], text[max(len(text)-checksumLine, 0):]
	sum := sha256.Sum256(content)
	if want := checksumPrefix + hex.EncodeToString(sum[:]) + "\n"; !bytes.Equal(line, []byte(want)) {
		return nil, fmt.Errorf("read %s: it is %w, or of an older version: its last line is not the checksum of the rest; delete it, and all is read from the store", path, ErrDamaged)
	}
	return content, nil
}
