package dump_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

var errLost = errors.New("lost")

// losing is a source that is lost after some messages.
type losing struct {
	source.Source
	after int
	files int             // sent
	sent  map[string]bool // blocks
}

func (l *losing) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		n := 0
		for m, err := range l.Source.Read(ctx, req) {
			if n++; l.after >= 0 && n > l.after {
				yield(nil, errLost)
				return
			}
			if f, ok := m.(*wire.File); ok {
				ulid, _, _ := strings.Cut(f.Name, "/")
				l.send(ulid)
				l.files++
			}
			if b, ok := m.(*wire.BlockStart); ok {
				l.send(b.ULID)
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func (l *losing) send(ulid string) {
	if l.sent == nil {
		l.sent = map[string]bool{}
	}
	l.sent[ulid] = true
}

// A dump that is lost at any message and gone on with is what it would have been,
// and what is there is not read again.
func TestGoOn(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 5, tsdbtest.Options{Plain: true})
	spec := dump.Spec{
		Request: wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()},
		Staging: t.TempDir(), Tool: "test", Now: time.Unix(1, 0), Lasting: true,
	}
	for _, c := range []archive.Compression{archive.Gzip, archive.Zstd, archive.None} {
		spec.Compression, spec.Kept = c, nil
		whole := &losing{Source: local.New(tsdb.Dir, local.Options{}), after: -1}
		var want bytes.Buffer
		if _, err := dump.Write(t.Context(), whole, spec, &want); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for after := 3; after < 40; after += 4 {
			spec.Kept = nil
			var part dumpFile
			src := &losing{Source: whole.Source, after: after}
			_, err := dump.Write(t.Context(), src, spec, &part)
			if err == nil {
				break // after the end
			}
			if !errors.Is(err, errLost) {
				t.Fatal(err)
			}
			if part.Len() == 0 {
				continue
			}
			spec.Kept, err = dump.ReadKept(bytes.NewReader(part.Bytes()))
			if err != nil {
				t.Fatalf("%s, lost after %d messages: %v", c, after, err)
			}
			kept += len(spec.Kept.Blocks)
			src = &losing{Source: whole.Source, after: -1}
			report, err := dump.Write(t.Context(), src, spec, &part)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := served(t, want.Bytes()), served(t, part.Bytes()); a != b {
				t.Errorf("%s, lost after %d messages: entries\n%s\nwant\n%s", c, after, b, a)
			}
			if len(spec.Kept.Blocks) > 0 && src.files >= whole.files {
				t.Errorf("%s, lost after %d messages: all %d files were read again", c, after, src.files)
			}
			if report.Blocks == 0 {
				t.Error("the report counts nothing")
			}
		}
		if kept < 3 {
			t.Errorf("%s: %d blocks were kept, too few to prove anything", c, kept)
		}
	}
}

// served is the digests of a whole dump's files, without its manifest.
func served(t *testing.T, b []byte) (sums string) {
	t.Helper()
	r, err := archive.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := map[string]string{}
	var names []string
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name)
		all[e.Name] = string(text)
	}
	return digest(names, all)
}

func digest(names []string, all map[string]string) string {
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%s %x\n", n, sha256.Sum256([]byte(all[n])))
	}
	return b.String()
}

// The dump of another server is not resumed, and stays as it is: blocks say which server
// it is, whatever its name is. The windows of a server that is asked do not.
func TestOtherData(t *testing.T) {
	a := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Series: 3, Interval: 5 * time.Minute})
	b := tsdbtest.Random(t, t.TempDir(), 4, tsdbtest.Options{Series: 3, Interval: 5 * time.Minute})
	var part dumpFile
	s := spec(t, all(wire.HeadNone))
	s.Lasting, s.Source = true, archive.Source{Kind: "local", Name: "a"}
	if _, err := dump.Write(t.Context(), &losing{Source: local.New(a.Dir, local.Options{}), after: 12}, s, &part); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		dir   string
		now   archive.Source
		other bool
	}{
		{a.Dir, archive.Source{Kind: "local", Name: "a"}, false},
		{a.Dir, archive.Source{Kind: "exec", Name: "moved"}, false},
		{a.Dir, archive.Source{Kind: "remote-read", Name: "a"}, true},
		{b.Dir, archive.Source{Kind: "local", Name: "a"}, true},
		{b.Dir, archive.Source{Kind: "local", Name: "b"}, true},
	} {
		kept, err := dump.ReadKept(bytes.NewReader(part.Bytes()))
		if err != nil || len(kept.Blocks) == 0 {
			t.Fatalf("%v, nothing to resume", err)
		}
		out := dumpFile{*bytes.NewBuffer(bytes.Clone(part.Bytes()))}
		s.Kept, s.Source = kept, tc.now
		_, err = dump.Write(t.Context(), local.New(tc.dir, local.Options{}), s, &out)
		if _, other := errors.AsType[*dump.OtherError](err); other != tc.other || err != nil && !other {
			t.Errorf("%s, %v: %v", tc.dir, tc.now, err)
		}
		if tc.other && !bytes.Equal(out.Bytes(), part.Bytes()) {
			t.Errorf("%s, %v: the unfinished dump was changed", tc.dir, tc.now)
		}
	}
}
