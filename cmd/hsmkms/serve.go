package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"hsmkms/api"
	"hsmkms/audit"
	"hsmkms/auth"
	"hsmkms/iam"
	"hsmkms/kms"
	"hsmkms/store"
)

func serveCommand() *cobra.Command {
	var file, listen, adminListen string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the service in the foreground until SIGTERM",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			cfg.Listen = cmp.Or(listen, cfg.Listen)
			cfg.AdminListen = cmp.Or(adminListen, cfg.AdminListen)
			return serve(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().StringVar(&listen, "listen", "", "address to serve on, over the one in the configuration")
	cmd.Flags().StringVar(&adminListen, "admin-listen", "", "address of /livez, /readyz and /metrics, over the one in the configuration")
	_ = cmd.MarkFlagRequired("config") // fails only for a flag that does not exist
	return cmd
}

// serve runs the service until ctx ends, drains it, and returns nil if all went well.
func serve(ctx context.Context, cfg *config) (err error) {
	out := newBufferedLog(os.Stderr, cfg.LogLevel)
	defer out.close()
	log := out.Logger
	metrics := api.NewMetrics()
	rooms, err := openRooms(ctx, cfg, metrics.Token, log, nil)
	if err != nil {
		return err
	}
	defer func() { err = joinClose(err, rooms.close) }()
	if cfg.Dev != nil { // now that the store shows that no other server has announced itself
		if err := cfg.Dev.retract(); err != nil {
			return err
		}
		defer func() { err = joinClose(err, cfg.Dev.retract) }()
	}
	vault, err := kms.OpenVault(ctx, rooms.store, rooms.tokens)
	if err != nil {
		return err
	}
	trail, err := openTrail(ctx, cfg, rooms, metrics, log)
	if err != nil {
		return err
	}
	defer func() { err = joinClose(err, func() error { return closeTrail(ctx, trail) }) }()
	identities, err := iam.New(iam.Config{Store: rooms.store, Vault: vault, Log: log})
	if err != nil {
		return err
	}
	service, err := openService(ctx, cfg, rooms, kms.Config{
		Vault: vault, Principals: kms.Principals{IDs: identities.Identify, ARNs: identities.ARNs}, Log: log,
	}, trail)
	if err != nil {
		return err
	}
	defer service.Close()
	if err := errors.Join(identities.Upgrade(ctx), service.Upgrade(ctx)); err != nil {
		return err
	}
	// What runs beside the requests ends after the last of them.
	defer beside(ctx,
		tuneCollector,
		service.Run,
		func(ctx context.Context) { follow(ctx, identities, log) },
		func(ctx context.Context) { takeStock(ctx, cfg, service, metrics, log) },
		func(ctx context.Context) { reportTokens(ctx, rooms, log) },
	)()
	handler, err := newHandler(cfg, service, identities, trail, metrics, log)
	if err != nil {
		return err
	}
	poolMetrics(metrics, rooms)
	admin := api.NewAdmin(api.AdminConfig{Metrics: metrics, Ready: rooms.ready(), Log: log})
	socket := newAdminHandler(&adminHandler{identities: identities, dev: cfg.Dev, trail: trail, log: log})
	var secure *tls.Config
	if cfg.TLS != nil {
		certificates, err := newCertificates(ctx, cfg, rooms, log)
		if err != nil {
			return err
		}
		secure = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificates.get}
	}
	return listenAndServe(ctx, cfg, handlers{api: handler, admin: admin, socket: socket, tls: secure}, log)
}

// openService makes the service of a configuration, of which settings has what other rooms give.
func openService(ctx context.Context, cfg *config, rooms *rooms, settings kms.Config, trail *audit.Trail) (*kms.Service, error) {
	regions := map[string]kms.Region{}
	for name, token := range rooms.tokens {
		region := kms.Region{Token: token}
		if cfg.Regions[name].Home == homeWrapped {
			var err error
			if region.WrapUnder, err = kms.Domain(ctx, rooms.store, name); err != nil {
				return nil, err
			}
		}
		regions[name] = region
	}
	settings.Store, settings.Regions, settings.Budget = rooms.store, regions, cfg.Budget
	if cfg.Dev != nil {
		settings.Day = cfg.Dev.Day
	}
	if trail != nil {
		settings.Trail = trail.Deliver
	}
	return kms.New(settings)
}

// globalRegion is the Region that clients sign requests for when the service, as IAM, has none.
const globalRegion = "us-east-1"

func newHandler(cfg *config, service *kms.Service, identities *iam.Service, trail *audit.Trail, metrics *api.Metrics, log *slog.Logger) (http.Handler, error) {
	verifier, err := auth.New(auth.Config{
		Regions: func(service, region string) bool {
			_, ok := cfg.Regions[region]
			return ok || service != "kms" && region == globalRegion
		},
		Credential: func(ctx context.Context, id string) (auth.Credential, bool, error) {
			i, found, err := identities.Identity(ctx, id)
			if err != nil || !found {
				return auth.Credential{}, false, err
			}
			return auth.Credential{Caller: i.Caller, Version: i.Version, Session: i.Session, Token: i.Token, Expires: i.Expires}, true, nil
		},
		Secret:        identities.Secret,
		SecretTimeout: cfg.RequestTimeout,
	})
	if err != nil {
		return nil, err
	}
	settings := api.Config{KMS: service, IAM: identities, Verify: verifier.Verify, Timeout: cfg.RequestTimeout, Metrics: metrics, Log: log}
	if trail != nil {
		settings.Trail, settings.TrailRefuses = trail.Record, trail.Refuses
	}
	return api.NewServer(settings)
}

// beside runs functions in goroutines of their own, until the function that it returns ends their context, and waits for
// them. They do not end with ctx.
func beside(ctx context.Context, functions ...func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for _, f := range functions {
		running.Go(func() { f(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

// follow keeps identities fresh.
func follow(ctx context.Context, identities *iam.Service, log *slog.Logger) {
	if err := identities.Run(ctx); ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
		log.Error("following changes of identities", "error", err)
	}
}

// handlers are those of the listeners.
type handlers struct {
	api, admin, socket http.Handler
	// tls is how the API is served over TLS; nil for plain HTTP.
	tls *tls.Config
}

// listenAndServe serves all listeners until ctx ends and drains them.
func listenAndServe(ctx context.Context, cfg *config, handlers handlers, log *slog.Logger) error {
	listeners, err := listen(ctx, cfg)
	if err != nil {
		return err
	}
	if cfg.Dev != nil {
		cfg.Dev.endpoint, cfg.Dev.region = endpoint(listeners[0].Addr(), handlers.tls != nil), slices.Sorted(maps.Keys(cfg.Regions))[0]
	}
	drained := &drainable{Handler: handlers.api}
	var servers []*http.Server
	failed := make(chan error, len(listeners))
	for i, handler := range []http.Handler{drained, handlers.admin, handlers.socket}[:len(listeners)] {
		server := newHTTPServer(handler, cfg.RequestTimeout, log)
		servers = append(servers, server)
		serve := func() error { return server.Serve(listeners[i]) }
		if i == 0 && handlers.tls != nil {
			server.TLSConfig = handlers.tls
			serve = func() error { return server.ServeTLS(listeners[0], "", "") }
		}
		go func() { failed <- serve() }() // ends with Shutdown
	}
	log.Info("serving", "listen", listeners[0].Addr().String(), "adminListen", listeners[1].Addr().String(), "adminSocket", cfg.AdminSocket, "version", version)
	if cfg.Dev != nil {
		if err := cfg.Dev.announce(); err != nil {
			log.Error("announcing the server", "error", err)
		}
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		log.Info("draining")
		err = listeners[0].Close()
		drained.sayLast()
	}
	return errors.Join(err, shutdown(servers, cfg.DrainTimeout))
}

// listen opens the listeners of the API and of the administrative endpoints, and the admin socket if there is to be one.
func listen(ctx context.Context, cfg *config) (listeners []net.Listener, err error) {
	var config net.ListenConfig
	tcp := func(address string) func() (net.Listener, error) {
		return func() (net.Listener, error) { return config.Listen(ctx, "tcp", address) }
	}
	open := []func() (net.Listener, error){tcp(cfg.Listen), tcp(cfg.AdminListen)}
	if cfg.AdminSocket != "" {
		open = append(open, func() (net.Listener, error) { return listenAdminSocket(ctx, cfg.AdminSocket) })
	}
	for _, one := range open {
		listener, err := one()
		if err != nil {
			for _, opened := range listeners {
				err = joinClose(err, opened.Close)
			}
			return nil, err
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

// endpoint is the URL of an address for clients on this machine.
func endpoint(address net.Addr, secure bool) string {
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	if tcp, ok := address.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("%s127.0.0.1:%d", scheme, tcp.Port)
	}
	return scheme + address.String()
}

// newHTTPServer bounds how long a client may take to send a request or to read an answer. The time for the latter begins with
// the request, and so has the work for it added.
func newHTTPServer(handler http.Handler, work time.Duration, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2*work + 50*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// Otherwise net/http itself would answer OPTIONS *, with success.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// shutdown lets requests under way finish, for as long as the drain timeout.
func shutdown(servers []*http.Server, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var errs []error
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("draining: %w", err))
		}
	}
	return errors.Join(errs...)
}
