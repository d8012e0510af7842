package router

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isochrone/isochrone/topology"
)

func TestSuppose(t *testing.T) {
	top := sixPoPs()
	top.PoPs["nrt1"].State = topology.Draining
	view := viewOf(compileTest(t, top, world()), "fra1")
	for _, test := range []struct {
		what   []string
		client string
		want   string
	}{
		{[]string{"pop sin1 down"}, "1.0.0.0/24", "[jnb1]"},
		{[]string{"pop fra1 up"}, "2.0.0.0/24", "[fra1]"},
		{[]string{"pop sin1 draining", "pop iad1 down"}, "1.0.0.0/24", "[jnb1]"},
		{[]string{"pop new1 at 1.35,103.8,SG", "pop sin1 down"}, "1.0.0.0/24", "[new1]"},
		{[]string{"pop new1 at 48.85,2.35"}, "2.0.0.0/24", "[new1]"},
		{[]string{"pop sin1 at 0,-150"}, "1.0.0.0/24", "[jnb1]"},
	} {
		supposed, err := Suppose(view, test.what...)
		if err != nil {
			t.Errorf("%q: %v", test.what, err)
			continue
		}
		if got, _ := ask(t, supposed, IPv4, test.client); fmt.Sprint(got) != test.want {
			t.Errorf("%q: got %v, want %s", test.what, got, test.want)
		}
	}
	if got, _ := ask(t, view, IPv4, "1.0.0.0/24"); fmt.Sprint(got) != "[sin1]" {
		t.Errorf("afterwards the view itself answers %v", got)
	}
	for what, want := range map[string]string{
		"pop mars1 down": "there is no PoP mars1; there are fra1", "pop sin1": "not understood", "sin1 down": "not understood",
		"pop x at 91,0": "not a place", "pop x at 1": "LAT,LON", "pop sin1 gone": "not understood",
	} {
		if _, err := Suppose(view, what); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", what, err, want)
		}
	}
}
