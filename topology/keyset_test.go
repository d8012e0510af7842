package topology

import (
	"fmt"
	"maps"
	"testing"
)

// TestKeySets makes sets after one another, and finds each as it was when it was given away.
func TestKeySets(t *testing.T) {
	var (
		editor keySetEditor
		given  []*KeySet
		wanted []map[string]*Key
	)
	now := map[string]*Key{}
	for i := range 3000 {
		id := fmt.Sprint(i * 7 % 500)
		if i%3 == 2 {
			editor.remove(id)
			delete(now, id)
		} else {
			k := &Key{Note: fmt.Sprint(i)}
			editor.put(id, k)
			now[id] = k
		}
		if i%50 == 0 {
			given, wanted = append(given, editor.set()), append(wanted, maps.Clone(now))
		}
	}
	for i, set := range given {
		if got := maps.Collect(set.All()); !maps.Equal(got, wanted[i]) || set.Len() != len(wanted[i]) {
			t.Errorf("set %d has %d keys (%d), want %d", i, set.Len(), len(got), len(wanted[i]))
		}
		for id, k := range wanted[i] {
			if set.Lookup(id) != k {
				t.Errorf("set %d: %s is %v, want %v", i, id, set.Lookup(id), k)
			}
		}
	}
	last := editor.set()
	if editor.remove("nobody"); editor.set() != last {
		t.Error("without a change there is another set")
	}
	if none := (*KeySet)(nil); none.Len() != 0 || none.Lookup("x") != nil || len(maps.Collect(none.All())) != 0 {
		t.Error("a nil set is not empty")
	}
}
