package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithy "github.com/aws/smithy-go/middleware"

	"github.com/pontoon-registry/pontoon/blobs"
)

// connectTime bounds the making of a connection: a host that is gone does not answer at all.
const connectTime = 5 * time.Second

// newClient makes the SDK's client; c is valid and has its defaults. The http.Client is the caller's to let go of.
func newClient(ctx context.Context, c Config) (*s3.Client, *http.Client, error) {
	transport, err := newTransport(c)
	if err != nil {
		return nil, nil, err
	}
	options := []func(*config.LoadOptions) error{config.WithRegion(c.Region)}
	if c.AccessKey != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, c.SessionToken)))
	}
	shared, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("read credentials: %w", err)
	}
	web := &http.Client{
		Transport: transport,
		// The SDK must see a redirect: it says that the bucket is in another region.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s3.NewFromConfig(shared, func(o *s3.Options) {
		o.HTTPClient = web
		o.UsePathStyle = c.ForcePathStyle
		if endpoint := c.endpoint(); endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
		// Only what may be repeated passes through it: see once. Exponential, with jitter, and with a budget that all
		// calls share: a store that refuses everything is soon asked once for each call and no more.
		o.Retryer = counted{Standard: retry.NewStandard(func(so *retry.StandardOptions) {
			so.MaxAttempts = c.MaxAttempts
			so.MaxBackoff = 3 * time.Second
			so.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(hopeless), retry.IsErrorRetryableFunc(wordless)}, so.Retryables...)
		}), repeated: c.Repeated}
		o.DisableLogOutputChecksumValidationSkipped = true
		if c.Checksums == "required" {
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
		o.APIOptions = append(o.APIOptions, func(stack *smithy.Stack) error {
			return middleware.AddUserAgentKey(c.UserAgent)(stack)
		})
	}), web, nil
}

// counted tells of every repetition.
type counted struct {
	*retry.Standard
	repeated func()
}

// RetryDelay is asked once before each repetition.
func (c counted) RetryDelay(attempt int, err error) (time.Duration, error) {
	if c.repeated != nil {
		c.repeated()
	}
	if wordless(err) == aws.TrueTernary {
		return 0, nil // waiting mends no clock, and where it is truly forbidden that is to be said
	}
	return c.Standard.RetryDelay(attempt, err)
}

// hopeless says that no repetition makes a certificate a good one; nor what a body is made of, which send reads again.
func hopeless(err error) aws.Ternary {
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) || errors.Is(err, blobs.ErrCorrupt) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// wordless says that a HEAD may be repeated, at once, that was forbidden: its answer has no body that could say why. One why is
// a clock that was set, here or there: the SDK learns of it by the answer, and signs the next try by the server's clock. Where
// a body says RequestTimeTooSkewed the SDK repeats by itself.
func wordless(err error) aws.Ternary {
	var answer *awshttp.ResponseError
	if !errors.As(err, &answer) || answer.HTTPStatusCode() != http.StatusForbidden {
		return aws.UnknownTernary
	}
	if r := answer.HTTPResponse(); r == nil || r.Request == nil || r.Request.Method != http.MethodHead {
		return aws.UnknownTernary
	}
	return aws.TrueTernary
}

// once makes a call that is never repeated by itself: its first try may have
// had the effect that the second then finds in its way.
func once(o *s3.Options) { o.Retryer = aws.NopRetryer{} }

func newTransport(c Config) (*http.Transport, error) {
	transport := awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) { d.Timeout = connectTime }).GetTransport()
	// Calls are bounded by MaxCalls. A stream that a slow client reads holds a connection and no call, so a bound on
	// connections would let slow clients keep all others from the store.
	transport.MaxConnsPerHost = 0
	transport.MaxIdleConns = 0 // those of one host are bounded below
	transport.MaxIdleConnsPerHost = min(c.MaxCalls, 128)
	transport.TLSClientConfig = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: c.SkipVerify, // the operator asked for it by name
	}
	if c.CAFile != "" {
		roots, err := readRoots(c.CAFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	transport.Proxy = http.ProxyFromEnvironment
	if c.Proxy != "" {
		proxy, err := url.Parse(c.Proxy)
		if err != nil {
			return nil, fmt.Errorf("proxy: must be a URL") // without the error: it could hold a password
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	return transport, nil
}

// readRoots answers the system's certificates and those of the file.
func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cafile: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a machine without any is fine: the file is what was asked for
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cafile %s: holds no certificate in PEM", file)
	}
	return roots, nil
}
