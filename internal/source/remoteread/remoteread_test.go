package remoteread

import (
	"testing"

	"github.com/promdump/promdump/internal/source/sourcetest"
)

func TestSource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Kind{OpenDB: openDB, Refuses: refuses, Selections: 6, Stops: 6})
}
