package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// A dump does not need to write, and does not try to.
func TestReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d := tsdbtest.Random(t, dir, 2, tsdbtest.Options{}) // open: its lock is there
	before := listing(t, dir)
	for _, head := range []string{"block", "raw"} {
		args := func(file string) []string {
			return []string{"dump", "-d", dir, "--min-time", ms(d.MinTime + 3_600_001), "--max-time", ms(d.MaxTime), "--match", `{namespace=~"ns-.*"}`, "--head=" + head, "--force", "-t", file}
		}
		if head == "raw" { // whole blocks and the head's files
			args = func(file string) []string {
				return []string{"dump", "-d", dir, "--min-time", "0", "--max-time", "now", "--head=raw", "--force", "-t", file}
			}
		}
		t.Run("mount/"+head, func(t *testing.T) { readOnlyMount(t, dir, args) })
		t.Run("strace/"+head, func(t *testing.T) { noWrites(t, dir, args) })
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the data dir was\n%s\nand is\n%s", before, after)
	}
}

func readOnlyMount(t *testing.T, dir string, args func(file string) []string) {
	const require = "PROMDUMP_E2E_REQUIRE_MOUNT"
	script := `mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && ! touch "$0/probe" 2>/dev/null && exec "$@"`
	if out, err := exec.Command("unshare", "-m", "sh", "-c", script, dir, "true").CombinedOutput(); err != nil {
		missing(t, require, "no read-only bind mount: %v: %s", err, out)
	}
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	all := append([]string{"-m", "sh", "-c", script, dir, binary(t).promdump}, args(file)...)
	if out, err := exec.Command("unshare", all...).CombinedOutput(); err != nil {
		t.Fatalf("dump of a read-only data dir: %v\n%s", err, out)
	}
	promdump(t, "verify", file)
}

func noWrites(t *testing.T, dir string, args func(file string) []string) {
	if _, err := exec.LookPath("strace"); err != nil {
		missing(t, "PROMDUMP_E2E_REQUIRE_STRACE", "%v", err)
	}
	// The judge itself: it sees a file that is made, and one that is locked.
	if found, _ := trace(t, t.TempDir(), "sh", "-c", `: > "$0/made"`); len(found) != 0 {
		t.Fatalf("a write elsewhere is blamed: %v", found)
	}
	other := t.TempDir()
	if found, _ := trace(t, other, "sh", "-c", `: > "$0/made" && rm "$0/made"`, other); len(found) < 2 {
		t.Fatalf("writes are not seen: %v", found)
	}
	found, opened := trace(t, dir, binary(t).promdump, args(filepath.Join(t.TempDir(), "dump.tar.gz"))...)
	if len(found) > 0 {
		t.Errorf("%d calls that write, such as\n%s", len(found), strings.Join(found[:min(8, len(found))], "\n"))
	}
	if opened < 10 {
		t.Errorf("just %d files below the data dir were opened: was it read at all?", opened)
	}
}

var (
	writing = regexp.MustCompile(`\bO_(WRONLY|RDWR|CREAT|TRUNC|APPEND)\b|\bF_(OFD_)?SETLK|^(mkdir|rename|unlink|rmdir|link|symlink|chmod|fchmod|chown|fchown|lchown|mknod|utime|futimes|truncate|ftruncate|fallocate|flock|write|pwrite|setxattr|fsetxattr|removexattr)`)
	call    = regexp.MustCompile(`^(?:\[pid +\d+\] |\d+ +)?(?:<\.\.\. )?([a-z0-9_]+)`)
)

// trace runs a command under strace and gives its calls that write below dir,
// and how many files there it opened.
func trace(t *testing.T, dir, name string, args ...string) (found []string, opened int) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	all := append([]string{"-f", "-y", "-s", "4096", "-o", log, "-e", "trace=%file,write,pwrite64,writev,pwritev,ftruncate,fallocate,flock,fcntl,fchmod,fchown,fsetxattr", name}, args...)
	if out, err := exec.Command("strace", all...).CombinedOutput(); err != nil && len(args) > 2 {
		t.Fatalf("strace %s: %v\n%s", name, err, out)
	}
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		line := lines.Text()
		m := call.FindStringSubmatchIndex(line)
		if m == nil || !strings.Contains(line, dir+"/") {
			continue
		}
		text := line[m[2]:]
		switch {
		case strings.HasPrefix(text, "execve"):
		case strings.HasPrefix(text, "write") || strings.HasPrefix(text, "pwrite"):
			// What is written may name the dir; only where to counts.
			if to, _, _ := strings.Cut(text, ","); strings.Contains(to, dir+"/") {
				found = append(found, line)
			}
		case writing.MatchString(text):
			found = append(found, line)
		case strings.HasPrefix(text, "open"):
			opened++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return found, opened
}

// listing has every file with its size and time.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Size(), info.ModTime(), info.Mode())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
