package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/api"
)

func newServe(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "serve [FILE]", Short: "Run a node",
		Long: "Run a node until SIGTERM or SIGINT: it turns unready, lets running requests end (http.draintimeout), hands\n" +
			"leadership over and stops. A second signal ends it at once. SIGHUP reads certificates and secrets again.\n\n" +
			"Without any configuration it is a registry on 127.0.0.1:5000 with its data in /var/lib/pontoon (root) or\n" +
			"below $XDG_DATA_HOME.",
		Example: "  pontoon serve\n  pontoon serve --config /etc/pontoon/config.yml\n" +
			"  REGISTRY_HTTP_ADDR=127.0.0.1:5050 pontoon serve",
		Args: a.fileArgument,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context()) },
	}
}

// serve reads the configuration, builds a node and runs it.
func (a *app) serve(ctx context.Context) error {
	c, err := loadConfig(a.config, a.host)
	if err != nil {
		return err
	}
	log, err := api.NewLogger(a.err, api.LogConfig{Level: c.Log.Level, Formatter: c.Log.Formatter, Fields: c.Log.fields()})
	if err != nil {
		return err
	}
	defer tuneCollector(a.host.getenv, c.Storage.S3.Memory)()
	log.Info("starting", "release", releaseName(), "config", orText(c.File, "defaults"), "data", c.Cluster.DataDir)
	for _, n := range c.Notices {
		log.Warn("configuration: " + n)
	}
	if err := a.awaitSpace(ctx, c.Config, log); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while it waited
		}
		return err
	}
	f, err := openFaults(ctx, a.host, log)
	if err != nil {
		return err
	}
	r, err := open(ctx, c.Config, a.host, f, log)
	if err != nil {
		return errors.Join(err, f.close())
	}
	r.announce = func(url string) { a.announce(c, url) }
	return errors.Join(r.run(ctx), f.close())
}

// fields are log.fields as slog wants them.
func (l LogConfig) fields() map[string]string {
	out := map[string]string{}
	for name, values := range l.Fields {
		if len(values) > 0 {
			out[name] = values[0]
		}
	}
	return out
}

// announce says once what to type next. It is for people: scripts ask /readyz or `pontoon status --wait`.
func (a *app) announce(c *loaded, url string) {
	host := url[len(scheme(c.HTTP.TLS))+len("://"):]
	text := fmt.Sprintf("registry ready at %s\n", url)
	if c.Log.Formatter == "text" && c.HTTP.TLS.Mode == "none" && c.Auth.Kind != "htpasswd" {
		text += fmt.Sprintf("try: docker tag alpine %s/hello && docker push %s/hello\n", host, host)
	}
	if c.Log.Formatter == "text" && c.HTTP.TLS.Mode == "issued" {
		text += fmt.Sprintf("clients must trust its authority: pontoon cluster ca > /etc/docker/certs.d/%s/ca.crt\n", host)
	}
	_, _ = fmt.Fprint(a.out, text) // nobody to tell when it fails
}

func scheme(t TLSConfig) string {
	if t.Mode == "none" {
		return "http"
	}
	return "https"
}

// announceReady waits until the node is ready for the first time and calls say.
func announceReady(ctx context.Context, health *api.Health, log *slog.Logger, say func()) error {
	const poll = 50 * time.Millisecond
	begun := time.Now()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !health.Report(ctx).Ready {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	log.Info("ready", "after", time.Since(begun).Round(time.Millisecond).String())
	say()
	return nil
}
