//go:build faults

package main

import (
	"time"
	_ "unsafe" // for go:linkname
)

// sdkNow is the clock of the AWS SDK, by which it signs, corrects a skew and expires credentials. It has no option for it.
//
//go:linkname sdkNow github.com/aws/aws-sdk-go-v2/internal/sdk.NowTime
var sdkNow func() time.Time

// turnSDKClock gives the SDK another clock, before anything uses it.
func turnSDKClock(now func() time.Time) { sdkNow = now }
