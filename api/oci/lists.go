package oci

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// page reads n: how many names are asked for. Absent, or more than the bound, means the bound.
func (c *call) page(bound int) (int, error) {
	if !c.query.Has("n") {
		return bound, nil
	}
	n, ok := decimal(c.query.Get("n"))
	if !ok {
		return 0, invalid(metav1.Noun_NOUN_CURSOR, "n: got %q, expected a number from 0", clip(c.query.Get("n")))
	}
	return int(min(n, int64(bound))), nil
}

// listTags is end-8.
func (c *call) listTags() error {
	n, err := c.page(c.TagsMax)
	if err != nil {
		return err
	}
	last := c.query.Get("last")
	if last != "" {
		if err := meta.ParseTag(last); err != nil {
			return err
		}
	}
	names, more := []string{}, false
	err = c.view(false, func(v *meta.View) error {
		if _, err := v.Repository(c.name); err != nil || n == 0 {
			return err
		}
		rows, m, err := v.Tags(c.name, last, n)
		for _, row := range rows {
			names = append(names, row.Name)
		}
		more = m
		return err
	})
	if err != nil {
		return err
	}
	return c.writeNames("/v2/"+c.name+"/tags/list", n, more, names, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{c.name, names})
}

// listRepositories is the Docker API's catalog, with the same paging.
func (c *call) listRepositories() error {
	n, err := c.page(c.CatalogMax)
	if err != nil {
		return err
	}
	last := c.query.Get("last")
	if last != "" {
		if err := meta.ParseRepository(last); err != nil {
			return err
		}
	}
	names, more := []string{}, false
	err = c.view(false, func(v *meta.View) error {
		if n == 0 {
			return nil
		}
		rows, m, err := v.Repositories(last, n)
		names, more = append(names, rows...), m
		return err
	})
	if err != nil {
		return err
	}
	return c.writeNames("/v2/_catalog", n, more, names, struct {
		Repositories []string `json:"repositories"`
	}{names})
}

// writeNames writes a list, with a Link to the rest.
func (c *call) writeNames(path string, n int, more bool, names []string, list any) error {
	if more && len(names) > 0 {
		c.link(path, url.Values{"n": {strconv.Itoa(n)}, "last": {names[len(names)-1]}})
	}
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, "application/json", append(body, '\n'))
}

// link points to the next page (RFC 5988). It keeps ns, like every address we give out.
func (c *call) link(path string, query url.Values) {
	if ns := c.query.Get("ns"); ns != "" {
		query.Set("ns", ns)
	}
	c.w.Header().Set("Link", "<"+path+"?"+query.Encode()+`>; rel="next"`)
}
