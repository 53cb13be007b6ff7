package agentbin

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// parseSums reads what sha256sum writes. A line without a name has the empty one.
func parseSums(text string) (map[string][32]byte, error) {
	sums := make(map[string][32]byte)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		digits, name, _ := strings.Cut(line, " ")
		if len(name) > 0 && (name[0] == ' ' || name[0] == '*') {
			name = name[1:]
		}
		var digest [32]byte
		if len(digits) != hex.EncodedLen(len(digest)) {
			return nil, fmt.Errorf("line %.100q is not that of a SHA-256", line)
		}
		if _, err := hex.Decode(digest[:], []byte(digits)); err != nil {
			return nil, fmt.Errorf("line %.100q is not that of a SHA-256", line)
		}
		if _, twice := sums[name]; twice {
			return nil, fmt.Errorf("two digests of %.100q", name)
		}
		sums[name] = digest
	}
	return sums, nil
}
