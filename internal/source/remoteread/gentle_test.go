package remoteread

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
)

// TestGentle: windows are asked for one after the other, with pauses as long as the one
// before took, and the dump is the same.
func TestGentle(t *testing.T) {
	const slow = 30 * time.Millisecond
	db := tsdbtest.Random(t, t.TempDir(), 0, tsdbtest.Options{})
	dump := func(gentle bool) (file []byte, begins []time.Time, together int) {
		var mu sync.Mutex
		now := 0
		s := serve(t, db.DB(), db.DB(), func(s *server) {
			s.read = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if isWindow(t, r) {
					mu.Lock()
					begins = append(begins, time.Now())
					now++
					together = max(together, now)
					mu.Unlock()
					time.Sleep(slow)
					defer func() {
						mu.Lock()
						now--
						mu.Unlock()
					}()
				}
				next.ServeHTTP(w, r)
			}
		})
		_, _, file, err := sourcetest.Dump(t, s.source(t, func(o *Options) { o.Gentle = gentle }), all(db))
		if err != nil {
			t.Fatal(err)
		}
		return file, begins, together
	}
	want, usual, together := dump(false)
	if len(usual) < 3 || together < 2 {
		t.Fatalf("%d windows, %d at a time: that proves nothing", len(usual), together)
	}
	got, begins, together := dump(true)
	if string(got) != string(want) {
		t.Errorf("the dump has %d bytes, and %d without pauses", len(got), len(want))
	}
	if together != 1 {
		t.Errorf("%d windows at a time", together)
	}
	for i := 1; i < len(begins); i++ {
		if d := begins[i].Sub(begins[i-1]); d < 2*slow {
			t.Errorf("window %d is asked for %v after the one before, which took %v", i, d, slow)
		}
	}
}
