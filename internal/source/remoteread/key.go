package remoteread

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/prompb"
)

// A key is a set of labels as bytes that sort as the labels do: name, value, name,
// value, …, each ended by two zeros; a zero within one is a zero and a one.

// appendKey appends the key of labels without those that strip says, by name and
// value. Labels of the same name twice are an error.
func appendKey(b []byte, ls []prompb.Label, strip map[string]string) ([]byte, error) {
	byName := func(x, y prompb.Label) int { return strings.Compare(x.Name, y.Name) }
	if !slices.IsSortedFunc(ls, byName) {
		slices.SortFunc(ls, byName)
	}
	from := len(b)
	for i, l := range ls {
		if l.Name == "" || i > 0 && l.Name == ls[i-1].Name {
			return b, &FrameError{fmt.Sprintf("a series has label %.300q twice, or one without a name", l.Name)}
		}
		if v, ok := strip[l.Name]; l.Value == "" || ok && v == l.Value {
			continue
		}
		b = appendPart(appendPart(b, l.Name), l.Value)
	}
	if len(b) == from {
		return b, &FrameError{"a series has no labels"}
	}
	return b, nil
}

func appendPart(b []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 {
			return append(append(b, s...), 0, 0)
		}
		b = append(append(b, s[:i]...), 0, 1)
		s = s[i+1:]
	}
}

// parts gives the names and values of a key that appendKey made, in turns.
func parts(key []byte, f func(string)) {
	var escaped []byte
	for len(key) > 0 {
		i := bytes.IndexByte(key, 0)
		if i < 0 || i+1 >= len(key) {
			return
		}
		part, mark := key[:i], key[i+1]
		key = key[i+2:]
		if mark == 0 && escaped == nil {
			f(string(part))
			continue
		}
		escaped = append(escaped, part...)
		if mark == 0 {
			f(string(escaped))
			escaped = nil
		} else {
			escaped = append(escaped, 0)
		}
	}
}
