package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/cluster"
)

func newCluster(a *app) *cobra.Command {
	return group("cluster", "Secret and authority of the cluster, and who belongs to it",
		newClusterSecret(a), newClusterCA(a), newClusterTrust(a),
		newClusterMembers(a), newClusterLeave(a), newClusterRemove(a), newClusterTransfer(a), newClusterFinalize(a), newClusterRecover(a),
	)
}

func newClusterSecret(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "secret [FILE]", Short: "Generate a cluster secret",
		Long: "Generate a cluster secret, into a new file (mode 0600) or to standard output. It is all that nodes share:\n" +
			"make it once, copy it to every node, and name it as cluster.secretfile.\n\n" +
			"To change it, go in three steps, each on all nodes before the next, while they run: add a new secret as second\n" +
			"line; make it the first; remove the old one. `pontoon cluster trust` says when the next step is safe.",
		Example: "  pontoon cluster secret /etc/pontoon/secret",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.tellSecret(cluster.GenerateSecret())
			}
			err := writeSecret(args[0])
			if errors.Is(err, fs.ErrExist) {
				return &codedError{exitConflict, fmt.Errorf("%s is there already and was left as it is: "+
					"remove it first if no node uses it", args[0])}
			}
			if err != nil {
				return err
			}
			if a.json() {
				return a.showJSON(map[string]string{"file": args[0]})
			}
			_, err = fmt.Fprintf(a.out, "wrote %s; copy it to every node and set cluster.secretfile: %s\n", args[0], args[0])
			return err
		},
	}
}

func (a *app) tellSecret(secret string) error {
	if a.json() {
		return a.showJSON(map[string]string{"secret": secret})
	}
	_, err := fmt.Fprintln(a.out, secret)
	return err
}

func newClusterCA(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ca", Short: "Print the certificate authority that clients of the registry should trust",
		Long: "Print the public certificate authority, as PEM, of the certificates that the cluster issues for its\n" +
			"registry listeners. It follows from the secret and is the same on every node; no node has to run.",
		Example: "  pontoon cluster ca > /etc/docker/certs.d/registry.example.com:5000/ca.crt",
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			c, err := loadConfig(a.config, a.host)
			if err != nil {
				return err
			}
			secrets, _, err := cluster.ReadSecretFile(c.secretPath())
			if errors.Is(err, fs.ErrNotExist) {
				return &codedError{exitNotFound, fmt.Errorf("%s is not there: the node has no secret yet; "+
					"start it once, or name another configuration with --config", c.secretPath())}
			}
			if err != nil {
				return err
			}
			trust, err := cluster.NewTrust(secrets, "cli", nil)
			if err != nil {
				return err
			}
			if a.json() {
				return a.showJSON(map[string]string{"pem": string(trust.PublicCA())})
			}
			_, err = a.out.Write(trust.PublicCA())
			return err
		},
	}
}
