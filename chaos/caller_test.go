package chaos

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// caller is an HTTP client that repeats nothing, not even what net/http's would behind one's back when a kept connection
// turns out to be closed: what fails, failed.
type caller struct {
	addr string
	keep bool // the connection, for as long as the server does
	conn net.Conn
	in   *bufio.Reader
	uses int // of the connection
}

// do makes one request.
func (c *caller) do(ctx context.Context, method, path string, header http.Header, body []byte) (answer, error) {
	a, err := c.once(ctx, method, path, header, body)
	if err != nil {
		err = fmt.Errorf("%s %s, request %d of its connection, at %s: %w", method, path, c.uses, time.Now().Format("15:04:05.000"), err)
		c.close()
	}
	return a, err
}

func (c *caller) once(ctx context.Context, method, path string, header http.Header, body []byte) (answer, error) {
	if c.conn == nil {
		conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", c.addr)
		if err != nil {
			return answer{}, err
		}
		c.conn, c.in, c.uses = conn, bufio.NewReader(conn), 0
	}
	c.uses++
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return answer{}, err
	}
	target, err := url.Parse("http://" + c.addr + path)
	if err != nil {
		return answer{}, err
	}
	request := (&http.Request{
		Method: method, URL: target, Host: c.addr, Header: header, Close: !c.keep,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}).WithContext(ctx)
	if header == nil {
		request.Header = http.Header{}
	}
	if err := request.Write(c.conn); err != nil {
		return answer{}, fmt.Errorf("write request: %w", err)
	}
	response, err := http.ReadResponse(c.in, request)
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, fmt.Errorf("read answer's body: %w", err)
	}
	if response.Close || !c.keep {
		c.close()
	}
	return answer{status: response.StatusCode, header: response.Header, body: content}, nil
}

func (c *caller) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// want makes one request and an error of any other status.
func (c *caller) want(ctx context.Context, status int, method, path string, header http.Header, body []byte) (answer, error) {
	a, err := c.do(ctx, method, path, header, body)
	if err == nil && a.status != status {
		err = &refused{fmt.Sprintf("%s %s, at %s, want %d", method, path, time.Now().Format("15:04:05.000"), status), a}
	}
	return a, err
}

// push uploads a small blob: POST, then PUT.
func (c *caller) push(ctx context.Context, repo string, content []byte) error {
	a, err := c.want(ctx, http.StatusAccepted, http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, nil)
	if err != nil {
		return err
	}
	_, err = c.want(ctx, http.StatusCreated, http.MethodPut, withQuery(a.header.Get("Location"), "digest="+digestOf(content)),
		http.Header{"Content-Type": {"application/octet-stream"}}, content)
	return err
}
