package topology

import (
	"fmt"
	"testing"
	"time"
)

const manyKeys = 100_000

// storedKeys returns the records of many keys, as they stand in the store.
func storedKeys(b *testing.B) map[string][]byte {
	b.Helper()
	values := make(map[string][]byte, manyKeys)
	for i := range manyKeys {
		id := fmt.Sprintf("key%07d", i)
		values["keys/"+id] = MarshalValue(&Key{
			Schema: 1, SHA256: HashKey(id), Services: []string{ExampleService}, QuotaPerMinute: 6000, Note: fmt.Sprintf("customer %d", i),
			Created: time.Date(2030, 1, 1, 0, 0, i, 0, time.UTC), Expires: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC),
		})
	}
	return values
}

// BenchmarkKeys reads 100,000 keys into an Assembler, and then one that has changed.
func BenchmarkKeys(b *testing.B) {
	values := storedKeys(b)
	load := func() *Assembler {
		a := NewAssembler(nil, 0)
		for key, value := range values {
			a.Put(key, value)
		}
		if snap := a.Snapshot(1); snap.Keys.Len() != manyKeys {
			b.Fatal(snap.Ignored)
		}
		return a
	}
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			load()
		}
	})
	b.Run("one changed", func(b *testing.B) {
		a, revision := load(), int64(1)
		b.ReportAllocs()
		for b.Loop() {
			revision++
			id := fmt.Sprintf("key%07d", revision%manyKeys)
			a.Put("keys/"+id, values["keys/"+id])
			a.Snapshot(revision)
		}
	})
}
