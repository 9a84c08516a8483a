package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// partitionTime bounds the search for a linearization of one register, manifest or lock.
const partitionTime = 20 * time.Second

// linearize holds the history of a season against the models. What is not linearizable is kept as a page that shows it.
func (c *guests) linearize(s *season, ops []check.Operation) {
	found := check.CheckLinear(ops, partitionTime)
	c.judgement.Join(found)
	for i, bad := range found.Bad {
		page := filepath.Join(c.a.dir, fmt.Sprintf("season%d-%d.html", s.number, i))
		if err := os.WriteFile(page, bad.Visualization, 0o644); err != nil {
			c.a.t.Error(err)
		}
		c.a.t.Logf("%s %s: %s, %d operations; see %s", bad.Model, bad.Name, bad.Decision, bad.Operations, page)
	}
}
