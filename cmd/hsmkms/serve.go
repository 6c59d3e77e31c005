package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"hsmkms/api"
	"hsmkms/auth"
	"hsmkms/hsm"
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
	service, err := openService(ctx, cfg, rooms, vault, log)
	if err != nil {
		return err
	}
	defer service.Close()
	identities, err := iam.New(iam.Config{Store: rooms.store, Vault: vault})
	if err != nil {
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
	handler, err := newHandler(cfg, service, identities, metrics, log)
	if err != nil {
		return err
	}
	poolMetrics(metrics, rooms)
	admin := api.NewAdmin(api.AdminConfig{Metrics: metrics, Ready: rooms.ready(), Log: log})
	return listenAndServe(ctx, cfg, handler, admin, log)
}

func openService(ctx context.Context, cfg *config, rooms *rooms, vault hsm.Vault, log *slog.Logger) (*kms.Service, error) {
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
	settings := kms.Config{Store: rooms.store, Regions: regions, Vault: vault, Budget: cfg.Budget, Log: log}
	if cfg.Dev != nil {
		settings.Day = cfg.Dev.Day
	}
	return kms.New(settings)
}

func newHandler(cfg *config, service *kms.Service, identities *iam.Service, metrics *api.Metrics, log *slog.Logger) (http.Handler, error) {
	verifier, err := auth.New(auth.Config{
		Service: "kms",
		Regions: func(region string) bool { _, ok := cfg.Regions[region]; return ok },
		Credential: func(ctx context.Context, id string) (auth.Credential, bool, error) {
			principal, version, found, err := identities.Identity(ctx, id)
			return auth.Credential{Principal: principal, Version: version}, found, err
		},
		Secret:        identities.Secret,
		SecretTimeout: cfg.RequestTimeout,
	})
	if err != nil {
		return nil, err
	}
	return api.NewServer(api.Config{KMS: service, Verify: verifier.Verify, Timeout: cfg.RequestTimeout, Metrics: metrics, Log: log})
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

// listenAndServe serves both listeners until ctx ends and drains them.
func listenAndServe(ctx context.Context, cfg *config, handler, admin http.Handler, log *slog.Logger) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return err
	}
	adminListener, err := config.Listen(ctx, "tcp", cfg.AdminListen)
	if err != nil {
		return joinClose(err, listener.Close)
	}
	drained := &drainable{Handler: handler}
	servers := []*http.Server{newHTTPServer(drained, log), newHTTPServer(admin, log)}
	failed := make(chan error, len(servers))
	go func() { failed <- servers[0].Serve(listener) }() // both end with Shutdown
	go func() { failed <- servers[1].Serve(adminListener) }()
	log.Info("serving", "listen", listener.Addr().String(), "adminListen", adminListener.Addr().String(), "version", version)
	if cfg.Dev != nil {
		if err := cfg.Dev.announce(cfg, endpoint(listener.Addr())); err != nil {
			log.Error("announcing the server", "error", err)
		}
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		log.Info("draining")
		err = listener.Close()
		drained.sayLast()
	}
	return errors.Join(err, shutdown(servers, cfg.DrainTimeout))
}

// endpoint is the URL of an address for clients on this machine.
func endpoint(address net.Addr) string {
	if tcp, ok := address.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("http://127.0.0.1:%d", tcp.Port)
	}
	return "http://" + address.String()
}

// newHTTPServer bounds how long a client may take to send a request or to read an answer.
func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
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
