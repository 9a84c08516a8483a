package main

import (
	"maps"
	"slices"
)

// otherKeys are distribution's keys that Pontoon does not honour: those that nothing needs here are accepted with a
// notice, those whose absence would change what the operator gets are refused. A line covers everything below its path.
func otherKeys() []key {
	var table []key
	needs, refuses := needlessKeys(), refusedKeys()
	for _, path := range slices.Sorted(maps.Keys(needs)) {
		table = append(table, key{path: path, class: needless, doc: needs[path]})
	}
	for _, path := range slices.Sorted(maps.Keys(refuses)) {
		table = append(table, key{path: path, class: refused, doc: refuses[path]})
	}
	return table
}

func needlessKeys() map[string]string {
	const (
		copies = "a commit copies nothing here"
		inTree = "descriptors are in the ledger, nothing has to be cached beside it"
	)
	return map[string]string{
		"http.secret":      "uploads are in the ledger, nodes share no cookie",
		"http.net":         "listeners are TCP",
		"redis":            inTree,
		"storage.cache":    inTree,
		"storage.tag":      "tags are looked up in the ledger",
		"log.reportcaller": "lines name their part of the program",

		"storage.maintenance.uploadpurging":         "uploads expire by themselves; see gc.uploads",
		"storage.filesystem.maxthreads":             "the number of open requests is bounded by http.maxconnections",
		"storage.s3.v4auth":                         "requests are always signed with version 4",
		"storage.s3.chunksize":                      "part sizes follow from the offset",
		"storage.s3.multipartcopychunksize":         copies,
		"storage.s3.multipartcopymaxconcurrency":    copies,
		"storage.s3.multipartcopythresholdsize":     copies,
		"storage.s3.useragent":                      "the SDK's is sent",
		"storage.s3.loglevel":                       "see log.level",
		"health.storagedriver":                      "the store is always watched, and a dead one does not make a node unready: metadata still answers",
		"validation.enabled":                        "manifests are always validated",
		"validation.disabled":                       "manifests are always validated",
		"compatibility":                             "Docker schema 1 is gone",
		"http.h2c":                                  "HTTP/2 is spoken with TLS only",
		"http.debug.prometheus":                     "metrics are always at /metrics of http.debug.addr",
		"http.http2":                                "HTTP/2 is spoken, with TLS, to clients that ask for it",
		"validation.manifests.indexes.platformlist": "it says which platforms must be there; see validation.manifests.indexes.platforms",
	}
}

func refusedKeys() map[string]string {
	const (
		later  = "comes later"
		driver = "use storage.filesystem or storage.s3"
	)
	return map[string]string{
		"loglevel":                     "write log.level",
		"log.hooks":                    "let a log collector send mail",
		"notifications":                "webhooks come later",
		"proxy":                        "the pull-through cache comes later",
		"middleware":                   "nothing can be loaded into Pontoon",
		"reporting":                    "no data leaves a node",
		"policy":                       later,
		"http.prefix":                  "the registry is always served at /v2/: give it a host name of its own",
		"http.tls.letsencrypt":         "give certificate and key, or let the cluster issue them",
		"auth.token":                   later,
		"auth.silly":                   "use htpasswd, or say auth: none",
		"storage.inmemory":             "acknowledged layers must survive a restart: " + driver,
		"storage.azure":                driver,
		"storage.gcs":                  driver + " with the interoperability endpoint",
		"storage.oss":                  driver,
		"storage.swift":                driver,
		"storage.maintenance.readonly": "freezing writes at runtime comes later",
		"storage.s3.usedualstack":      "name the dual-stack host as regionendpoint",
		"storage.s3.accelerate":        "name the accelerated host as regionendpoint",
		"storage.s3.redirectendpoint":  later,
		"storage.s3.objectacl":         "set a policy on the bucket",
		"validation.manifests.urls":    "foreign layers are accepted with any URL, and never fetched",
		"health.file":                  "ask /readyz",
		"health.http":                  "ask /readyz",
		"health.tcp":                   "ask /readyz",
		"admin":                        "the operators' socket is the only door now; the rest comes later",
		"gc.interval":                  "write gc.schedule, such as @every 6h",
	}
}
