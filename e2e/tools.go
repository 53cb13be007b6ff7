//go:build tools

package e2e

// The servers are built from their Go modules, so that go.sum says which bytes
// they are made of.
import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
