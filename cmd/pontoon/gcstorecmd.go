package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

func newGCVerify(a *app) *cobra.Command {
	var mark bool
	cmd := &cobra.Command{
		Use: "verify", Short: "Check the registry against itself and its store",
		Long: "Compute anew who needs what, from the bodies of the manifests alone, and compare it with the reference rows, the\n" +
			"counters and the store's own list. It changes nothing. Exit code 1: something differs, and it is listed.\n\n" +
			"--mark-lost marks layers that the store lacks as lost: they are answered as absent then, and the next push of one\n" +
			"heals it everywhere.",
		Example: "  pontoon gc verify\n  pontoon gc verify --mark-lost\n  pontoon gc verify -o json | jq .difference",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			stream, err := c.collection.VerifyStore(cmd.Context(), &adminv1.VerifyStoreRequest{MarkLost: mark})
			if err != nil {
				return err
			}
			var sum *adminv1.VerifySum
			p := a.progress()
			err = receive(stream, func(m *adminv1.VerifyStoreResponse) error {
				sum = m.GetSum()
				return a.tellVerify(p, m)
			})
			p.end()
			if err != nil {
				return err
			}
			switch n := sum.GetDifferences(); n {
			case 0:
				return nil
			case 1:
				return &codedError{exitFailure, errors.New("1 difference")}
			default:
				return &codedError{exitFailure, fmt.Errorf("%d differences", n)}
			}
		},
	}
	cmd.Flags().BoolVar(&mark, "mark-lost", false, "mark layers lost that the store lacks")
	return cmd
}

// tellVerify writes one message of a verification.
func (a *app) tellVerify(p *progress, m *adminv1.VerifyStoreResponse) error {
	if s := m.GetProgress(); s != nil {
		p.show(s.GetStep())
		return nil
	}
	p.end()
	if a.json() {
		return a.showLine(m)
	}
	var err error
	if d := m.GetDifference(); d != nil {
		where := strings.Join(nonEmpty(d.GetRepository(), d.GetManifest(), d.GetBlob(), d.GetKey()), " ")
		_, err = fmt.Fprintf(a.out, "%-10s  %s: %s\n", d.GetKind(), where, d.GetText())
	}
	if s := m.GetSum(); s != nil {
		_, err = io.WriteString(a.out, textOf(func(w io.Writer) { writeVerifySum(w, s) }))
	}
	return err
}

func writeVerifySum(w io.Writer, s *adminv1.VerifySum) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	writeFindings(func(name, format string, args ...any) { say("%s: %s", name, fmt.Sprintf(format, args...)) }, s.GetFindings())
	if s.GetMarkedLost() > 0 {
		say("%d layers were marked lost: push them again", s.GetMarkedLost())
	}
	say("looked at %d manifests, %d references, %d blobs, %d keys, at index %d", s.GetManifests(), s.GetReferences(), s.GetBlobs(), s.GetKeys(), s.GetIndex())
	say("waiting to be deleted: %d keys (%s), and %d orphans (%s)", s.GetUnneededKeys(), size(s.GetUnneededBytes()), s.GetOrphanKeys(), size(s.GetOrphanBytes()))
	if s.GetDifferences() == 0 {
		say("clean: no differences")
	}
}

func nonEmpty(all ...string) (out []string) {
	for _, s := range all {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

func newGCAdopt(a *app) *cobra.Command {
	var d destructive
	req := &adminv1.AdoptStoreRequest{}
	cmd := &cobra.Command{
		Use: "adopt", Short: "Take the owner mark of the store, so that this cluster deletes from it",
		Long: "Only the cluster that has the store's owner mark deletes from it. A restored cluster serves and pushes without the mark\n" +
			"and deletes nothing, so a restore beside a running cluster costs that one nothing. When the old cluster is gone for\n" +
			"good, take the mark from it here, naming it; it deletes nothing from then on, even if it comes back.\n\n" +
			"If layers may have been deleted that this cluster needs, they are looked for first. Some that are gone are listed, and\n" +
			"nothing is taken; --accept-missing marks them lost and goes on. Without --from a mark is made where there is none.\n\n" +
			"What the old cluster wrote stays even then, also what is deleted here: it may live, and need it. --forget-epoch E is for\n" +
			"one that is gone. It lets go what lies under the epoch E and is deleted here, and deletes what this cluster never knew:\n" +
			"what the old one was sent after the point of the restore. There is no way back from that.",
		Example: "  pontoon gc adopt --from 5a0c1f1e2d3b4a59 --dry-run\n  pontoon gc adopt --from 5a0c1f1e2d3b4a59 --yes\n" +
			"  pontoon gc adopt --forget-epoch 6f1c2b3a --yes       # later, when nothing of the old cluster is missed",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			return a.adopt(cmd, c, d, req)
		},
	}
	cmd.Flags().BoolVarP(&d.yes, "yes", "y", false, "do it without asking")
	cmd.Flags().BoolVar(&d.dry, "dry-run", false, "show what would be done, and do nothing")
	cmd.Flags().StringVar(&req.From, "from", "", "id of the cluster that has the mark")
	cmd.Flags().BoolVar(&req.AcceptMissing, "accept-missing", false, "although layers are gone that this cluster needs: mark them lost")
	cmd.Flags().StringArrayVar(&req.ForgetEpochs, "forget-epoch", nil, "delete what is stored under this epoch and unknown here; may be repeated")
	return cmd
}

func (a *app) adopt(cmd *cobra.Command, c *client, d destructive, req *adminv1.AdoptStoreRequest) error {
	req.DryRun = true
	judged, err := a.adoptOnce(cmd.Context(), c, req)
	if err != nil {
		return err
	}
	if d.dry {
		return a.show(judged, func(w io.Writer) { _, _ = io.WriteString(w, adoptionPreview(judged, req.GetForgetEpochs())) })
	}
	if !judged.GetNeedless() || len(req.GetForgetEpochs()) > 0 {
		if err := a.confirm(cmd, d, adoptionPreview(judged, req.GetForgetEpochs())); err != nil {
			return err
		}
	}
	req.DryRun = false
	done, err := a.adoptOnce(cmd.Context(), c, req)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) { writeAdoption(w, done) })
}

// adoptOnce makes the call and answers its last message; on the way it shows how the search for layers goes.
func (a *app) adoptOnce(ctx context.Context, c *client, req *adminv1.AdoptStoreRequest) (*adminv1.Adoption, error) {
	stream, err := c.collection.AdoptStore(ctx, req)
	if err != nil {
		return nil, err
	}
	var out *adminv1.Adoption
	p := a.progress()
	defer p.end()
	return out, receive(stream, func(m *adminv1.AdoptStoreResponse) error {
		if s := m.GetSearch(); s != nil {
			if a.json() {
				return nil // the adoption has the sum
			}
			return a.tellVerify(p, s)
		}
		out = m.GetAdoption()
		return nil
	})
}

func adoptionPreview(j *adminv1.Adoption, forget []string) string {
	return textOf(func(w io.Writer) {
		say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
		switch b := j.GetBefore(); {
		case j.GetNeedless():
			say("The owner mark is this cluster's already.")
		case b == nil:
			say("The store has no owner mark: one is made for this cluster, which deletes from the store then.")
		default:
			say("The owner mark of cluster %s, epoch %s, swept through index %d, becomes this cluster's: this one deletes from the store then, that one never again.",
				b.GetCluster(), b.GetEpoch(), b.GetSweptThrough())
		}
		if j.GetSearch() {
			say("Layers may have been deleted that this cluster needs: they are looked for first.")
		}
		for _, e := range forget {
			say("ALL that is stored under epoch %s and is not known here is DELETED for good by the next cycle.", e)
		}
	})
}

func writeAdoption(w io.Writer, done *adminv1.Adoption) {
	if done.GetNeedless() {
		_, _ = fmt.Fprintln(w, "the owner mark is this cluster's already")
	} else {
		_, _ = fmt.Fprintf(w, "adopted: this cluster deletes from the store from now on; swept through index %d\n", done.GetAfter().GetSweptThrough())
	}
	if done.GetLost() > 0 {
		_, _ = fmt.Fprintf(w, "%d layers are gone and were marked lost: push them again\n", done.GetLost())
	}
	if done.GetRequest() > 0 {
		_, _ = fmt.Fprintln(w, "a cycle is asked for that forgets the epochs: see `pontoon gc status`")
	}
}
