package main

import "syscall"

// childAttributes makes a child a process group of its own, so that an interrupt at the
// terminal reaches only us. This system cannot end it when we are killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
