-- PostgreSQL 15

CREATE SCHEMA syncline;

CREATE FUNCTION syncline.join_seen(origin integer, a jsonb, a_origin integer, a_clock bigint, b jsonb, b_origin integer, b_clock bigint) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
      select jsonb_object_agg(site, clock) from (
        select site, max(clock) as clock from (
          select key as site, value::int8 as clock from jsonb_each_text(coalesce(a, '{}'))
          union all select key, value::int8 from jsonb_each_text(coalesce(b, '{}'))
          union all select a_origin::text, a_clock union all select b_origin::text, b_clock
        ) every_dot where site <> origin::text group by site
      ) highest
    $$;

CREATE FUNCTION syncline.next_clock(origin integer, clock bigint, seen jsonb, me integer, now_us bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    AS $$
      select case
        when origin = me and seen is null then greatest(now_us, clock + 1)
        when seen is null then greatest(now_us, least(clock + 1, now_us + 300000000))
        else greatest(
          now_us,
          least((select max(value::int8) + 1 from jsonb_each_text(seen)), now_us + 300000000),
          case when origin = me then clock + 1 else least(clock + 1, now_us + 300000000) end,
          (seen ->> me::text)::int8 + 1)
      end
    $$;

CREATE FUNCTION syncline.next_seen(origin integer, clock bigint, seen jsonb, me integer) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
      select case
        when origin = me then seen
        when seen is null then jsonb_build_object(origin::text, clock)
        else (seen || jsonb_build_object(origin::text, clock)) - me::text
      end
    $$;

CREATE TABLE syncline.checkpoint (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    direction text NOT NULL,
    value text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT checkpoint_direction_check CHECK ((direction = ANY (ARRAY['pull'::text, 'push'::text, 'ack'::text])))
);

COMMENT ON TABLE syncline.checkpoint IS 'pull: our place in the order of the peer; push: up to where the peer took our changes; ack: up to where it pulled them and said so.';

CREATE TABLE syncline.conflict (
    id bigint NOT NULL,
    peer_id integer,
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    run_id bigint,
    ours jsonb,
    ours_version jsonb NOT NULL,
    theirs jsonb,
    theirs_version jsonb NOT NULL,
    header jsonb NOT NULL,
    line text NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    resolved_at timestamp with time zone,
    resolved_by text,
    resolution text,
    comment text
);

ALTER TABLE syncline.conflict ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.conflict_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.history (
    id bigint NOT NULL,
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    run_id bigint,
    at timestamp with time zone DEFAULT now() NOT NULL,
    reason text NOT NULL,
    origin integer NOT NULL,
    clock bigint NOT NULL,
    seen jsonb,
    deleted boolean NOT NULL,
    data json
);

COMMENT ON TABLE syncline.history IS 'Values that were overwritten, deleted or lost a conflict here, with the run that did it.';

ALTER TABLE syncline.history ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.history_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.invitation (
    id integer NOT NULL,
    name text NOT NULL,
    hash bytea NOT NULL,
    pull jsonb NOT NULL,
    push jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    redeemed_at timestamp with time zone,
    redeemed_by uuid
);

ALTER TABLE syncline.invitation ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.invitation_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.log (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    run_id bigint,
    peer_id integer,
    peer_name text,
    resource text,
    mode text NOT NULL,
    direction text NOT NULL,
    action text NOT NULL,
    result text NOT NULL,
    remote boolean DEFAULT false NOT NULL,
    message text NOT NULL,
    changes integer DEFAULT 0 NOT NULL,
    applied integer DEFAULT 0 NOT NULL,
    conflicts integer DEFAULT 0 NOT NULL,
    quarantined integer DEFAULT 0 NOT NULL,
    refused integer DEFAULT 0 NOT NULL,
    bytes bigint DEFAULT 0 NOT NULL,
    duration_ms integer DEFAULT 0 NOT NULL,
    CONSTRAINT log_direction_check CHECK ((direction = ANY (ARRAY['incoming'::text, 'outgoing'::text, 'none'::text]))),
    CONSTRAINT log_result_check CHECK ((result = ANY (ARRAY['success'::text, 'warning'::text, 'error'::text, 'fatal'::text])))
);

ALTER TABLE syncline.log ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.migration (
    name character varying(255) NOT NULL,
    "timestamp" character varying(255) NOT NULL
);

CREATE TABLE syncline.migration_lock (
    id character varying(255) NOT NULL,
    is_locked integer DEFAULT 0 NOT NULL
);

CREATE TABLE syncline.parked (
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    fields jsonb NOT NULL
);

COMMENT ON TABLE syncline.parked IS 'Fields of a record that the local table has no column for; kept with the record, never dropped.';

CREATE TABLE syncline.peer (
    id integer NOT NULL,
    name text NOT NULL,
    kind text DEFAULT 'syncline'::text NOT NULL,
    uuid uuid NOT NULL,
    site_id integer NOT NULL,
    url text,
    token bytea,
    proxy_url text,
    proxy_secret bytea,
    ca_pem text,
    client_cert_pem text,
    client_key bytea,
    paused boolean DEFAULT false NOT NULL,
    log_id text,
    clock_offset_ms integer,
    last_seen_at timestamp with time zone,
    failures integer DEFAULT 0 NOT NULL,
    retry_at timestamp with time zone,
    revision integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON COLUMN syncline.peer.token IS 'What this site shows at the peer, encrypted with the key of the data folder.';

CREATE TABLE syncline.peer_grant (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    direction text NOT NULL,
    filter text,
    columns text[],
    on_conflict text DEFAULT 'newer'::text NOT NULL,
    master uuid,
    CONSTRAINT peer_grant_direction_check CHECK ((direction = ANY (ARRAY['pull'::text, 'push'::text])))
);

COMMENT ON TABLE syncline.peer_grant IS 'What a peer may ask of this site: pull from it, or push to it.';

ALTER TABLE syncline.peer ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.peer_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.pending_ref (
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    column_name text NOT NULL,
    target_resource_id integer NOT NULL,
    target_record_id text NOT NULL COLLATE pg_catalog."C"
);

COMMENT ON TABLE syncline.pending_ref IS 'References inside cycles whose target is not here yet; the column is null until it arrives.';

CREATE TABLE syncline.quarantine (
    id bigint NOT NULL,
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    via text NOT NULL,
    origin integer NOT NULL,
    clock bigint NOT NULL,
    run_id bigint,
    line text NOT NULL,
    header jsonb NOT NULL,
    code text NOT NULL,
    reason text NOT NULL,
    waits_resource_id integer,
    waits_record_id text COLLATE pg_catalog."C",
    attempts integer DEFAULT 1 NOT NULL,
    first_at timestamp with time zone DEFAULT now() NOT NULL,
    last_at timestamp with time zone DEFAULT now() NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT quarantine_via_check CHECK ((via = ANY (ARRAY['pull'::text, 'push'::text])))
);

COMMENT ON TABLE syncline.quarantine IS 'Records of peers that could not be applied, each alone, with the reason and what it waits for.';

ALTER TABLE syncline.quarantine ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.quarantine_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.record (
    xact xid8 NOT NULL,
    clock bigint NOT NULL,
    resource_id integer NOT NULL,
    origin integer NOT NULL,
    source integer,
    deleted boolean DEFAULT false NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    seen jsonb
);

COMMENT ON TABLE syncline.record IS 'One row for every record of every attached resource, living or deleted: version store, tombstone store and change feed at once.';

COMMENT ON COLUMN syncline.record.xact IS 'The transaction that wrote this version here. With record_id it is the position in the change order.';

COMMENT ON COLUMN syncline.record.source IS 'The site this version came from; null when it was made here or settled here.';

COMMENT ON COLUMN syncline.record.seen IS 'Highest clock seen of every other origin; null means none.';

CREATE TABLE syncline.resource (
    id integer NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    table_schema text NOT NULL,
    table_name text NOT NULL,
    table_oid oid NOT NULL,
    key_column text NOT NULL,
    columns jsonb NOT NULL,
    fingerprint text NOT NULL,
    capture_version integer NOT NULL,
    managed boolean DEFAULT false NOT NULL,
    added_uuid boolean DEFAULT false NOT NULL,
    registered_after text,
    ready boolean DEFAULT false NOT NULL,
    attached_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON COLUMN syncline.resource.registered_after IS 'Last key registered while existing rows are being registered; null before and after.';

ALTER TABLE syncline.resource ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.resource_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.run (
    id bigint NOT NULL,
    peer_id integer,
    peer_name text,
    cause text NOT NULL,
    state text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    alive_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    result text,
    code text,
    message text,
    counts jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT run_result_check CHECK ((result = ANY (ARRAY['success'::text, 'warning'::text, 'error'::text, 'fatal'::text])))
);

COMMENT ON COLUMN syncline.run.alive_at IS 'When the process that performs the run last said so; one that stays silent was killed.';

ALTER TABLE syncline.run ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.run_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.self (
    one boolean DEFAULT true NOT NULL,
    uuid uuid NOT NULL,
    site_id integer NOT NULL,
    name text NOT NULL,
    log_id text NOT NULL,
    log_seen jsonb NOT NULL,
    public_key text NOT NULL,
    private_key bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT self_one_check CHECK (one)
);

COMMENT ON COLUMN syncline.self.log_seen IS 'What identifies the cluster, database and timeline that log_id belongs to; a difference mints a new log_id.';

CREATE TABLE syncline.setting (
    name text NOT NULL,
    value jsonb NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE syncline.shared (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    gone boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE syncline.shared IS 'For links with a filter: which records the peer was sent, so that it hears when one leaves the filter.';

CREATE TABLE syncline.site (
    id integer NOT NULL,
    origin text NOT NULL COLLATE pg_catalog."C",
    uuid uuid NOT NULL
);

COMMENT ON TABLE syncline.site IS 'Every origin of changes as a small integer. A restored site writes under a new origin: its UUID, a slash and its logId.';

ALTER TABLE syncline.site ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.site_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.task (
    id integer NOT NULL,
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    mode text NOT NULL,
    filter text,
    columns text[],
    on_conflict text DEFAULT 'newer'::text NOT NULL,
    master uuid,
    on_left text DEFAULT 'keep'::text NOT NULL,
    schedule text,
    enabled boolean DEFAULT true NOT NULL,
    revision integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT task_mode_check CHECK ((mode = ANY (ARRAY['pull'::text, 'push'::text, 'both'::text]))),
    CONSTRAINT task_on_left_check CHECK ((on_left = ANY (ARRAY['keep'::text, 'remove'::text])))
);

COMMENT ON COLUMN syncline.task.schedule IS 'cron:<5 or 6 fields>, every:<seconds>, live, or null for by hand only.';

ALTER TABLE syncline.task ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.task_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.token (
    id integer NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    peer_id integer,
    hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT token_check CHECK (((role = 'peer'::text) = (peer_id IS NOT NULL))),
    CONSTRAINT token_role_check CHECK ((role = ANY (ARRAY['administrator'::text, 'operator'::text, 'viewer'::text, 'peer'::text])))
);

COMMENT ON COLUMN syncline.token.hash IS 'SHA-256 of the token. The token itself has 256 random bits and is never kept here.';

ALTER TABLE syncline.token ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.token_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY syncline.checkpoint
    ADD CONSTRAINT checkpoint_pkey PRIMARY KEY (peer_id, resource_id, direction);

ALTER TABLE ONLY syncline.conflict
    ADD CONSTRAINT conflict_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.history
    ADD CONSTRAINT history_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.invitation
    ADD CONSTRAINT invitation_hash_key UNIQUE (hash);

ALTER TABLE ONLY syncline.invitation
    ADD CONSTRAINT invitation_name_key UNIQUE (name);

ALTER TABLE ONLY syncline.invitation
    ADD CONSTRAINT invitation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.log
    ADD CONSTRAINT log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.migration_lock
    ADD CONSTRAINT migration_lock_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (name);

ALTER TABLE ONLY syncline.parked
    ADD CONSTRAINT parked_pkey PRIMARY KEY (resource_id, record_id);

ALTER TABLE ONLY syncline.peer_grant
    ADD CONSTRAINT peer_grant_pkey PRIMARY KEY (peer_id, resource_id, direction);

ALTER TABLE ONLY syncline.peer
    ADD CONSTRAINT peer_name_key UNIQUE (name);

ALTER TABLE ONLY syncline.peer
    ADD CONSTRAINT peer_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.peer
    ADD CONSTRAINT peer_uuid_key UNIQUE (uuid);

ALTER TABLE ONLY syncline.pending_ref
    ADD CONSTRAINT pending_ref_pkey PRIMARY KEY (resource_id, record_id, column_name);

ALTER TABLE ONLY syncline.quarantine
    ADD CONSTRAINT quarantine_peer_id_resource_id_record_id_key UNIQUE (peer_id, resource_id, record_id);

ALTER TABLE ONLY syncline.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.record
    ADD CONSTRAINT record_pkey PRIMARY KEY (resource_id, record_id);

ALTER TABLE ONLY syncline.resource
    ADD CONSTRAINT resource_name_key UNIQUE (name);

ALTER TABLE ONLY syncline.resource
    ADD CONSTRAINT resource_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.resource
    ADD CONSTRAINT resource_table_schema_table_name_key UNIQUE (table_schema, table_name);

ALTER TABLE ONLY syncline.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.self
    ADD CONSTRAINT self_pkey PRIMARY KEY (one);

ALTER TABLE ONLY syncline.setting
    ADD CONSTRAINT setting_pkey PRIMARY KEY (name);

ALTER TABLE ONLY syncline.shared
    ADD CONSTRAINT shared_pkey PRIMARY KEY (peer_id, resource_id, record_id);

ALTER TABLE ONLY syncline.site
    ADD CONSTRAINT site_origin_key UNIQUE (origin);

ALTER TABLE ONLY syncline.site
    ADD CONSTRAINT site_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.task
    ADD CONSTRAINT task_peer_id_resource_id_key UNIQUE (peer_id, resource_id);

ALTER TABLE ONLY syncline.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.token
    ADD CONSTRAINT token_hash_key UNIQUE (hash);

ALTER TABLE ONLY syncline.token
    ADD CONSTRAINT token_pkey PRIMARY KEY (id);

CREATE UNIQUE INDEX conflict_open ON syncline.conflict USING btree (resource_id, record_id) WHERE (resolved_at IS NULL);

CREATE INDEX history_at ON syncline.history USING btree (at);

CREATE INDEX history_record ON syncline.history USING btree (resource_id, record_id, id);

CREATE INDEX log_at ON syncline.log USING btree (at);

CREATE INDEX log_peer ON syncline.log USING btree (peer_id, id DESC);

CREATE INDEX log_resource ON syncline.log USING btree (resource, id DESC);

CREATE INDEX log_run ON syncline.log USING btree (run_id, id DESC) WHERE (run_id IS NOT NULL);

CREATE INDEX pending_ref_target ON syncline.pending_ref USING btree (target_resource_id, target_record_id);

CREATE INDEX quarantine_record ON syncline.quarantine USING btree (resource_id, record_id);

CREATE INDEX quarantine_waits ON syncline.quarantine USING btree (waits_resource_id, waits_record_id);

CREATE INDEX record_feed ON syncline.record USING btree (resource_id, xact, record_id);

CREATE INDEX run_open ON syncline.run USING btree (id) WHERE (finished_at IS NULL);

CREATE INDEX run_peer ON syncline.run USING btree (peer_id, id DESC);

ALTER TABLE ONLY syncline.checkpoint
    ADD CONSTRAINT checkpoint_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.checkpoint
    ADD CONSTRAINT checkpoint_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.conflict
    ADD CONSTRAINT conflict_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE SET NULL;

ALTER TABLE ONLY syncline.conflict
    ADD CONSTRAINT conflict_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.log
    ADD CONSTRAINT log_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE SET NULL;

ALTER TABLE ONLY syncline.parked
    ADD CONSTRAINT parked_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.peer_grant
    ADD CONSTRAINT peer_grant_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.peer_grant
    ADD CONSTRAINT peer_grant_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.peer
    ADD CONSTRAINT peer_site_id_fkey FOREIGN KEY (site_id) REFERENCES syncline.site(id);

ALTER TABLE ONLY syncline.pending_ref
    ADD CONSTRAINT pending_ref_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.pending_ref
    ADD CONSTRAINT pending_ref_target_resource_id_fkey FOREIGN KEY (target_resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.quarantine
    ADD CONSTRAINT quarantine_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.quarantine
    ADD CONSTRAINT quarantine_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.run
    ADD CONSTRAINT run_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE SET NULL;

ALTER TABLE ONLY syncline.self
    ADD CONSTRAINT self_site_id_fkey FOREIGN KEY (site_id) REFERENCES syncline.site(id);

ALTER TABLE ONLY syncline.shared
    ADD CONSTRAINT shared_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.shared
    ADD CONSTRAINT shared_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.task
    ADD CONSTRAINT task_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.task
    ADD CONSTRAINT task_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id);

ALTER TABLE ONLY syncline.token
    ADD CONSTRAINT token_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;
