package main

import "syscall"

// childAttributes makes a child a process group of its own, so that an interrupt at the
// terminal reaches only us, and lets the kernel end it when we are gone (prctl(2), PR_SET_PDEATHSIG).
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
