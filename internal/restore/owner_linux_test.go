package restore

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOwnerAndModes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65532); err != nil {
		t.Fatal(err)
	}
	dump, ids := blocksDump(t, span{"a", noon, noon + hour})
	mustRestore(t, dump, Spec{Dir: dir})
	err := filepath.WalkDir(filepath.Join(dir, ids[0]), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		want := os.FileMode(0o644)
		if e.IsDir() {
			want = 0o755 | os.ModeDir
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if st := fi.Sys().(*syscall.Stat_t); fi.Mode() != want || st.Uid != 65534 || st.Gid != 65532 {
			t.Errorf("%s: %v of %d:%d", path, fi.Mode(), st.Uid, st.Gid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
