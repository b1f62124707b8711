-- PostgreSQL 15

CREATE SCHEMA syncline;

CREATE FUNCTION syncline.field_origins(fields jsonb) RETURNS SETOF integer
    LANGUAGE sql IMMUTABLE
    AS $$
      select distinct e.key::int4 from jsonb_each(fields) f, jsonb_each(f.value) p, jsonb_each(p.value) e
    $$;

CREATE FUNCTION syncline.inexact() RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
    begin
      raise exception using errcode = 'SYNX1', message = 'a value does not fit its column without losing something';
    end
    $$;

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

CREATE FUNCTION syncline.map_fields(fields jsonb, origins integer[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
      select jsonb_object_agg(f.key, (
        select jsonb_object_agg(p.key, (
          select jsonb_object_agg(origins[e.key::int4 + 1]::text, e.value) from jsonb_each(p.value) e))
          from jsonb_each(f.value) p))
        from jsonb_each(fields) f
    $$;

COMMENT ON FUNCTION syncline.map_fields(fields jsonb, origins integer[]) IS 'The origins in the writes behind fields, from places in a list to its members.';

CREATE FUNCTION syncline.misfit(given jsonb, columns integer) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
    begin
      raise exception using errcode = '22023',
        message = format('the record has %s values where the batch announces %s columns', jsonb_array_length(given), columns);
    end
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

CREATE FUNCTION syncline.next_fields(fields jsonb, origin integer, clock bigint, me integer, now bigint, changed jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    AS $$
    declare
      rest jsonb := coalesce(fields -> '*', jsonb_build_object('dots', jsonb_build_object(origin::text, clock)));
      plain jsonb := jsonb_build_object('dots', jsonb_build_object(me::text, now));
      made jsonb := jsonb_build_object('*', rest) || coalesce(fields, '{}');
      field text;
      delta text;
      mark jsonb;
    begin
      for field, delta in select * from jsonb_each_text(changed) loop
        mark := coalesce(fields -> field, rest);
        if delta is null or mark ? 'values' then
          mark := plain;
        elsif mark ? 'base' then
          mark := mark || jsonb_build_object(
            'dots', mark -> 'dots' || jsonb_build_object(me::text, now),
            'sums', mark -> 'sums' || jsonb_build_object(me::text, (coalesce((mark -> 'sums' ->> me::text)::numeric, 0) + delta::numeric)::text));
        elsif (select count(*) from jsonb_object_keys(mark -> 'dots')) = 1 then
          mark := jsonb_build_object('base', mark -> 'dots', 'dots', jsonb_build_object(me::text, now), 'sums', jsonb_build_object(me::text, delta));
        else
          mark := plain;
        end if;
        made := made || jsonb_build_object(field, mark);
      end loop;
      return made;
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

CREATE FUNCTION syncline.place_fields(fields jsonb, origins integer[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
      select jsonb_object_agg(f.key, (
        select jsonb_object_agg(p.key, (
          select jsonb_object_agg((array_position(origins, e.key::int4) - 1)::text, e.value) from jsonb_each(p.value) e))
          from jsonb_each(f.value) p))
        from jsonb_each(fields) f
    $$;

COMMENT ON FUNCTION syncline.place_fields(fields jsonb, origins integer[]) IS 'The other way round: from members of the list to their places.';

CREATE FUNCTION syncline.sound_dots(dots jsonb, origin integer, clock bigint, seen jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
      select jsonb_object_agg(key, least(value, limit_us)) from (
        select e.key, e.value::int8 as value, coalesce(case when e.key::int4 = origin then clock else (seen ->> e.key)::int8 end, 0) as limit_us
          from jsonb_each_text(dots) e) d where limit_us > 0
    $$;

CREATE FUNCTION syncline.sound_fields(fields jsonb, origin integer, clock bigint, seen jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    AS $$
    declare
      made jsonb := '{}';
      field text;
      mark jsonb;
      dots jsonb;
    begin
      if not exists (select from jsonb_each(fields) f, jsonb_each(f.value) p, jsonb_each_text(p.value) e
                      where p.key in ('dots', 'base')
                        and e.value::int8 > coalesce(case when e.key::int4 = origin then clock else (seen ->> e.key)::int8 end, 0)) then
        return fields;
      end if;
      for field, mark in select * from jsonb_each(fields) loop
        dots := syncline.sound_dots(mark -> 'dots', origin, clock, seen);
        if dots is null then
          mark := jsonb_build_object('dots', jsonb_build_object(origin::text, clock));
        else
          mark := mark || jsonb_build_object('dots', dots);
          if mark ? 'values' then
            mark := mark || jsonb_build_object('values', (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(mark -> 'values') where dots ? key));
          end if;
          if mark ? 'base' and syncline.sound_dots(mark -> 'base', origin, clock, seen) is null then
            mark := mark - 'base' - 'sums';
          elsif mark ? 'base' then
            mark := mark || jsonb_build_object(
              'base', syncline.sound_dots(mark -> 'base', origin, clock, seen),
              'sums', (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(mark -> 'sums') where dots ? key));
          end if;
        end if;
        made := made || jsonb_build_object(field, mark);
      end loop;
      return made;
    end
    $$;

COMMENT ON FUNCTION syncline.sound_fields(fields jsonb, origin integer, clock bigint, seen jsonb) IS 'The writes behind the fields of a version, none of which the version has not seen.';

CREATE FUNCTION syncline.uncount() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    begin
      update syncline.digest d set living = d.living - o.records, sum = d.sum - o.sum
        from (select resource_id, count(*) as records, sum(counted) as sum from old_rows where counted is not null group by 1) o
       where d.resource_id = o.resource_id;
      return null;
    end
    $$;

CREATE FUNCTION syncline.whole_digest(resource integer, OUT records bigint, OUT sum numeric, OUT head text, OUT behind bigint) RETURNS record
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
    declare
      last text := repeat(chr(1114111), 4);
    begin
      select d.living + coalesce(b.records, 0), d.sum + coalesce(b.sum, 0), coalesce(b.behind, 0),
             (select r.xact::text from syncline.record r where r.resource_id = resource order by r.xact desc, r.record_id desc limit 1)
        into records, sum, behind, head
        from syncline.digest d left join lateral (
          select sum(g.behind) as behind, sum(g.records) as records, sum(g.sum) as sum
            from (select array(select w from unnest(d.whole) w order by w) as whole) w
            cross join lateral (
              select coalesce(g.low, d.folded) as low, case when g.low is null then d.folded_id else last end collate "C" as low_id, g.high
                from unnest(array_prepend(null::xid8, w.whole), array_append(w.whole, '18446744073709551615'::xid8)) as g(low, high) offset 0
            ) gap
            cross join lateral (
              select count(*) as behind, count(*) filter (where not r.deleted) - count(r.counted) as records,
                     coalesce(sum(case when r.deleted then null else hashtextextended(r.record_id, hashtextextended(o.origin, r.clock)) end), 0)
                       - coalesce(sum(r.counted), 0) as sum
                from syncline.record r join syncline.site o on o.id = r.origin
               where r.resource_id = resource and (r.xact, r.record_id) > (gap.low, gap.low_id) and r.xact < gap.high
            ) g
        ) b on true
       where d.resource_id = resource;
    end
    $$;

CREATE TABLE syncline.agreement (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    verdict text NOT NULL,
    reason text,
    compared_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    records bigint,
    differing integer,
    deep_differing integer,
    doubt text,
    agreed_at timestamp with time zone,
    agreed_records bigint,
    head text,
    scope text DEFAULT ''::text NOT NULL,
    took_ms real DEFAULT 0 NOT NULL,
    CONSTRAINT agreement_verdict_check CHECK ((verdict = ANY (ARRAY['equal'::text, 'waiting'::text, 'different'::text, 'unknown'::text])))
);

COMMENT ON TABLE syncline.agreement IS 'What the last comparison with a peer found, and when both sites were last found equal.';

COMMENT ON COLUMN syncline.agreement.deep_differing IS 'Records that a comparison of values found different, until one finds them equal.';

COMMENT ON COLUMN syncline.agreement.doubt IS 'Why values may differ under equal versions, until a comparison of values.';

CREATE TABLE syncline.alarm (
    id bigint NOT NULL,
    code text NOT NULL,
    level text NOT NULL,
    peer text DEFAULT ''::text NOT NULL,
    resource text DEFAULT ''::text NOT NULL,
    text text NOT NULL,
    mend text NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    last timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended timestamp with time zone,
    CONSTRAINT alarm_level_check CHECK ((level = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text])))
);

COMMENT ON TABLE syncline.alarm IS 'Episodes: from when a rule of the stall detector began to hold until it no longer did.';

ALTER TABLE syncline.alarm ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.alarm_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.alarm_notice (
    id bigint NOT NULL,
    alarm_id bigint NOT NULL,
    moment text NOT NULL,
    channel text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    next_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    sent_at timestamp with time zone,
    given_up boolean DEFAULT false NOT NULL,
    error text,
    CONSTRAINT alarm_notice_channel_check CHECK ((channel = ANY (ARRAY['mail'::text, 'webhook'::text]))),
    CONSTRAINT alarm_notice_moment_check CHECK ((moment = ANY (ARRAY['begin'::text, 'end'::text])))
);

COMMENT ON TABLE syncline.alarm_notice IS 'What is to be told of an episode, once at its begin and once at its end, by each channel.';

ALTER TABLE syncline.alarm_notice ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.alarm_notice_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.brake (
    id bigint NOT NULL,
    token text NOT NULL COLLATE pg_catalog."C",
    peer_id integer NOT NULL,
    resource_id integer,
    direction text NOT NULL,
    rules text[] NOT NULL,
    reason text NOT NULL,
    facts jsonb NOT NULL,
    run_id bigint,
    opened_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    times integer DEFAULT 1 NOT NULL,
    released_at timestamp with time zone,
    released_by text,
    comment text,
    used_at timestamp with time zone,
    ended_at timestamp with time zone,
    ending text,
    CONSTRAINT brake_direction_check CHECK ((direction = ANY (ARRAY['pull'::text, 'push'::text, 'receive'::text, 'peer'::text, 'repair'::text]))),
    CONSTRAINT brake_ending_check CHECK ((ending = ANY (ARRAY['used'::text, 'changed'::text, 'cleared'::text, 'expired'::text])))
);

COMMENT ON TABLE syncline.brake IS 'Runs that were stopped before they wrote, and who let them go on. One open entry for a peer, a resource and a direction.';

COMMENT ON COLUMN syncline.brake.used_at IS 'When what was released first went on.';

ALTER TABLE syncline.brake ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.brake_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.brake_meter (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    deletes bigint DEFAULT 0 NOT NULL,
    changes bigint DEFAULT 0 NOT NULL
);

COMMENT ON TABLE syncline.brake_meter IS 'What a peer that pushes has deleted and changed here since an instant: its batches count together.';

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
    base jsonb,
    base_version jsonb,
    ours jsonb,
    ours_version jsonb NOT NULL,
    theirs jsonb,
    theirs_version jsonb NOT NULL,
    fields text[],
    header jsonb NOT NULL,
    line text NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    resolved_at timestamp with time zone,
    resolved_by text,
    resolution text,
    comment text
);

COMMENT ON COLUMN syncline.conflict.fields IS 'The fields that need a person; null for all that differ.';

ALTER TABLE syncline.conflict ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.conflict_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.digest (
    resource_id integer NOT NULL,
    living bigint DEFAULT 0 NOT NULL,
    sum numeric DEFAULT 0 NOT NULL,
    folded xid8 DEFAULT '0'::xid8 NOT NULL,
    folded_id text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    whole xid8[] DEFAULT '{}'::xid8[] NOT NULL
);

COMMENT ON TABLE syncline.digest IS 'For each resource the number of living records and the sum of their hashes, as far as syncline.record.counted says. Records behind the place (folded, folded_id) in the change order may have changed since, those of the transactions in whole excepted.';

CREATE TABLE syncline.discard (
    id bigint NOT NULL,
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    origin integer NOT NULL,
    clock bigint NOT NULL,
    code text NOT NULL,
    reason text NOT NULL,
    decided_by text NOT NULL,
    because text,
    at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE syncline.discard IS 'Records of peers that a person here gave up while they waited, by version: a later version comes like any other.';

ALTER TABLE syncline.discard ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.discard_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.eden_archive (
    id integer NOT NULL,
    dataset_id integer NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    made_at timestamp with time zone DEFAULT now() NOT NULL,
    records bigint DEFAULT 0 NOT NULL,
    bytes bigint DEFAULT 0 NOT NULL,
    complete boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE syncline.eden_archive IS 'All of a data set as it was, as one zip file in pieces.';

ALTER TABLE syncline.eden_archive ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.eden_archive_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.eden_archive_piece (
    archive_id integer NOT NULL,
    n integer NOT NULL,
    bytes bytea NOT NULL
);

CREATE TABLE syncline.eden_dataset (
    id integer NOT NULL,
    uuid uuid DEFAULT gen_random_uuid() NOT NULL,
    code text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    comments text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    modified_at timestamp with time zone DEFAULT now() NOT NULL,
    removed_at timestamp with time zone,
    CONSTRAINT eden_dataset_code_check CHECK ((code ~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$'::text))
);

COMMENT ON TABLE syncline.eden_dataset IS 'Tables that this site publishes together for Sahana Eden sites; a removed one is still told to have gone.';

ALTER TABLE syncline.eden_dataset ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.eden_dataset_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.eden_dataset_table (
    id integer NOT NULL,
    uuid uuid DEFAULT gen_random_uuid() NOT NULL,
    filter_uuid uuid DEFAULT gen_random_uuid() NOT NULL,
    dataset_id integer NOT NULL,
    resource_id integer NOT NULL,
    filter text
);

COMMENT ON TABLE syncline.eden_dataset_table IS 'A table of a data set; at Eden it is a task.';

COMMENT ON COLUMN syncline.eden_dataset_table.filter IS 'In the words of Eden, such as ~.name__like=A*.';

ALTER TABLE syncline.eden_dataset_table ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.eden_dataset_table_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.eden_record (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    uuid text,
    origin text COLLATE pg_catalog."C",
    clock bigint,
    seen jsonb,
    modified_on bigint,
    deleted boolean,
    prints jsonb,
    emptied jsonb DEFAULT '[]'::jsonb NOT NULL,
    shown_at bigint,
    sent jsonb,
    mci integer DEFAULT 0 NOT NULL,
    attributes jsonb DEFAULT '{}'::jsonb NOT NULL,
    gone boolean DEFAULT false NOT NULL,
    replaced_by text,
    within text,
    round bigint DEFAULT 0 NOT NULL,
    refused text,
    attempts integer DEFAULT 0 NOT NULL,
    retry_at timestamp with time zone,
    at timestamp with time zone DEFAULT now() NOT NULL,
    told jsonb,
    CONSTRAINT eden_record_check CHECK (((origin IS NULL) = (clock IS NULL)))
);

COMMENT ON TABLE syncline.eden_record IS 'What a Sahana Eden site was found to have of a record, and what it was sent.';

COMMENT ON COLUMN syncline.eden_record.uuid IS 'Name of the record at Eden, as it writes it.';

COMMENT ON COLUMN syncline.eden_record.origin IS 'With clock and seen the version here that Eden was found to have; null when it never showed the record.';

COMMENT ON COLUMN syncline.eden_record.modified_on IS 'Seconds since 1970, as Eden said last.';

COMMENT ON COLUMN syncline.eden_record.prints IS 'A print of each field that had a value.';

COMMENT ON COLUMN syncline.eden_record.emptied IS 'Fields that had a value before: Eden leaves out what is empty.';

COMMENT ON COLUMN syncline.eden_record.shown_at IS 'Seconds since 1970 by the clock of Eden when it showed the record: what is modified later is a new write.';

COMMENT ON COLUMN syncline.eden_record.sent IS 'What it was sent last, until it shows that it took it: version, modifiedOn, deleted, prints.';

COMMENT ON COLUMN syncline.eden_record.mci IS 'Master copy index as Eden sent it; 0 for what Eden never sent.';

COMMENT ON COLUMN syncline.eden_record.attributes IS 'All attributes of the element: who made and owns it, whether it is approved, and those that this site does not know.';

COMMENT ON COLUMN syncline.eden_record.gone IS 'Eden once showed it, and left it out of a full comparison.';

COMMENT ON COLUMN syncline.eden_record.replaced_by IS 'Record that it was merged into, until references follow it.';

COMMENT ON COLUMN syncline.eden_record.within IS 'Record that it stood in when it was told or shown: a deletion does not say that any more.';

COMMENT ON COLUMN syncline.eden_record.round IS 'Number of the last full comparison that showed it.';

COMMENT ON COLUMN syncline.eden_record.refused IS 'Why Eden did not take what was sent; null when it did, or nothing was sent.';

COMMENT ON COLUMN syncline.eden_record.told IS 'Folders: what was written before sent and was not shown yet, the earliest first, as in sent. Files come back in any order.';

CREATE TABLE syncline.eden_registration (
    peer_id integer NOT NULL,
    repository text NOT NULL,
    name text NOT NULL,
    apitype text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE syncline.eden_registration IS 'Peers of Sahana Eden that registered here, by the name that they give themselves.';

CREATE TABLE syncline.eden_stranger (
    peer_id integer NOT NULL,
    table_name text NOT NULL COLLATE pg_catalog."C",
    uuid text NOT NULL COLLATE pg_catalog."C",
    resource_id integer,
    record_id text COLLATE pg_catalog."C",
    element jsonb NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE syncline.eden_stranger IS 'Records of tables that this site has not, as a Sahana Eden site sent them, and the record that they stood in.';

CREATE TABLE syncline.eden_table (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    round bigint DEFAULT 0 NOT NULL,
    compared_at timestamp with time zone,
    took_ms integer,
    dataset text,
    dataset_task text,
    dataset_filter jsonb DEFAULT '[]'::jsonb NOT NULL,
    archive_origin text,
    archived_at timestamp with time zone
);

COMMENT ON TABLE syncline.eden_table IS 'Full comparisons with a table of a Sahana Eden site: how many there were, when the last one was, how long it took.';

COMMENT ON COLUMN syncline.eden_table.dataset IS 'Code of the data set there that the task with it came with.';

COMMENT ON COLUMN syncline.eden_table.dataset_task IS 'Name of that task there, and of the file in an archive.';

COMMENT ON COLUMN syncline.eden_table.dataset_filter IS 'Filters of that task, as variables of an address.';

COMMENT ON COLUMN syncline.eden_table.archive_origin IS 'Where the archive was when somebody chose to follow the data set.';

COMMENT ON COLUMN syncline.eden_table.archived_at IS 'When an archive was read in the place of everything.';

CREATE TABLE syncline.eden_trail (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    trail jsonb NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE syncline.eden_trail IS 'How far a Sahana Eden site that pulls has come in the order of this site, by the times that it asked with.';

CREATE TABLE syncline.elsewhere (
    id bigint NOT NULL,
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    outcome text NOT NULL,
    origin text,
    clock bigint,
    code text NOT NULL,
    reason text NOT NULL,
    waits_resource text,
    waits_id text,
    dependants integer DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 1 NOT NULL,
    first_at timestamp with time zone DEFAULT now() NOT NULL,
    last_at timestamp with time zone DEFAULT now() NOT NULL,
    retry_at timestamp with time zone,
    decided_by text,
    because text,
    terms text,
    CONSTRAINT elsewhere_outcome_check CHECK ((outcome = ANY (ARRAY['quarantined'::text, 'refused'::text, 'discarded'::text])))
);

COMMENT ON TABLE syncline.elsewhere IS 'What waits, was refused or was given up at peers of what this site sent them, as they told.';

COMMENT ON COLUMN syncline.elsewhere.terms IS 'Mark of what the peer let us write when it refused; when that changes, the record is offered again.';

ALTER TABLE syncline.elsewhere ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.elsewhere_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.folder (
    peer_id integer NOT NULL,
    settings jsonb NOT NULL
);

COMMENT ON TABLE syncline.folder IS 'How a peer that is a folder is read and written.';

CREATE TABLE syncline.folder_file (
    id bigint NOT NULL,
    peer_id integer NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    bytes bigint NOT NULL,
    modified text NOT NULL,
    sha256 text,
    place bigint,
    resources jsonb DEFAULT '{}'::jsonb NOT NULL,
    left_over jsonb DEFAULT '{}'::jsonb NOT NULL,
    state text NOT NULL,
    gone boolean DEFAULT false NOT NULL,
    reason text,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    taken_at timestamp with time zone,
    CONSTRAINT folder_file_check CHECK (((state <> 'waiting'::text) OR (place IS NOT NULL))),
    CONSTRAINT folder_file_state_check CHECK ((state = ANY (ARRAY['new'::text, 'waiting'::text, 'taken'::text, 'refused'::text, 'changed'::text])))
);

COMMENT ON TABLE syncline.folder_file IS 'Files that were seen in a folder. Each is taken once.';

COMMENT ON COLUMN syncline.folder_file.name IS 'Below the folder.';

COMMENT ON COLUMN syncline.folder_file.modified IS 'Time of the file in nanoseconds since 1970.';

COMMENT ON COLUMN syncline.folder_file.place IS 'Order in which files are read; null before a file is ready.';

COMMENT ON COLUMN syncline.folder_file.resources IS 'Records in it, by resource.';

COMMENT ON COLUMN syncline.folder_file.left_over IS 'What of it could not be read or is of no resource here, in words, by what it is.';

COMMENT ON COLUMN syncline.folder_file.state IS 'new: seen once, may be written to still; waiting: to be read; taken; refused: cannot be read; changed: it was written to while it was read.';

COMMENT ON COLUMN syncline.folder_file.gone IS 'It is no longer there under this name, or has another content now.';

ALTER TABLE syncline.folder_file ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.folder_file_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.folder_output (
    peer_id integer NOT NULL,
    spool text NOT NULL,
    bytes bigint NOT NULL,
    file_state jsonb NOT NULL,
    records jsonb NOT NULL,
    name text,
    begun_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE syncline.folder_output IS 'Files in the making: what was pushed to a folder and is not under its name yet.';

COMMENT ON COLUMN syncline.folder_output.spool IS 'Name of the hidden file it grows in.';

COMMENT ON COLUMN syncline.folder_output.bytes IS 'What of that file counts: what stands behind it was cut off by a crash.';

COMMENT ON COLUMN syncline.folder_output.name IS 'The name it is given; null before it is complete.';

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
    data json,
    refs jsonb,
    xact xid8,
    source integer,
    by_origin integer,
    by_clock bigint,
    rule text
);

COMMENT ON TABLE syncline.history IS 'Values that were overwritten, deleted or lost a conflict here, with the run that did it.';

COMMENT ON COLUMN syncline.history.refs IS 'Record ids behind the references of data, where these are numbers of this database.';

COMMENT ON COLUMN syncline.history.xact IS 'The transaction that wrote this version here, by which its run is found; null after a new log.';

COMMENT ON COLUMN syncline.history.source IS 'The site this version came from; null when it was made or settled here.';

COMMENT ON COLUMN syncline.history.by_clock IS 'With by_origin the version that took its place.';

COMMENT ON COLUMN syncline.history.rule IS 'The policy that decided, where the versions were concurrent.';

ALTER TABLE syncline.history ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.history_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.host_key (
    host text NOT NULL,
    port integer NOT NULL,
    type text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    trusted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    trusted_by text
);

COMMENT ON TABLE syncline.host_key IS 'Keys by which hosts prove who they are, as somebody has confirmed them.';

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

CREATE TABLE syncline.job_definition (
    id integer NOT NULL,
    name text NOT NULL,
    definition jsonb NOT NULL,
    revision integer DEFAULT 1 NOT NULL,
    enabled boolean NOT NULL,
    events text[] DEFAULT '{}'::text[] NOT NULL,
    considered_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    next_due timestamp with time zone,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    last_result text,
    last_finished_at timestamp with time zone,
    last_success_at timestamp with time zone
);

COMMENT ON TABLE syncline.job_definition IS 'Scheduled work as it was defined. Everything but definition and enabled is worked out by the site.';

COMMENT ON COLUMN syncline.job_definition.events IS 'What sets it off besides times, as written in its schedule.';

COMMENT ON COLUMN syncline.job_definition.considered_at IS 'Every due time up to then has been turned into a run, or left out by rule.';

ALTER TABLE syncline.job_definition ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.job_definition_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.job_run (
    id bigint NOT NULL,
    job_id integer,
    job_name text NOT NULL,
    cause text NOT NULL,
    caller text,
    due_at timestamp with time zone,
    phase text DEFAULT 'queued'::text NOT NULL,
    next_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    definition jsonb NOT NULL,
    state jsonb,
    dry_run boolean DEFAULT false NOT NULL,
    priority integer DEFAULT 0 NOT NULL,
    peers text[] DEFAULT '{}'::text[] NOT NULL,
    coalesced integer DEFAULT 0 NOT NULL,
    reason text,
    waiting_since timestamp with time zone,
    blocked_ms bigint DEFAULT 0 NOT NULL,
    token uuid DEFAULT gen_random_uuid() NOT NULL,
    worker uuid,
    host text,
    pid integer,
    alive_until timestamp with time zone,
    stop_asked_at timestamp with time zone,
    stop_asked_by text,
    queued_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    result text,
    code text,
    message text,
    counts jsonb DEFAULT '{}'::jsonb NOT NULL,
    progress jsonb,
    dead boolean DEFAULT false NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT job_run_phase_check CHECK ((phase = ANY (ARRAY['queued'::text, 'waiting'::text, 'running'::text, 'over'::text]))),
    CONSTRAINT job_run_result_check CHECK ((result = ANY (ARRAY['success'::text, 'warning'::text, 'error'::text, 'skipped'::text, 'stopped'::text])))
);

COMMENT ON TABLE syncline.job_run IS 'Runs of jobs: those to come, those under way, and the history.';

COMMENT ON COLUMN syncline.job_run.next_at IS 'Not before then: due time with jitter, or the next look at what blocks it.';

COMMENT ON COLUMN syncline.job_run.worker IS 'The process that has it; another one may go on with it once alive_until has passed.';

COMMENT ON COLUMN syncline.job_run.dead IS 'Failed for good, and no later run of the job has succeeded.';

ALTER TABLE syncline.job_run ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.job_run_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.job_step (
    id bigint NOT NULL,
    run_id bigint NOT NULL,
    stage text NOT NULL,
    place integer NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    attempt integer NOT NULL,
    host text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    result text,
    code text,
    message text,
    counts jsonb DEFAULT '{}'::jsonb NOT NULL,
    output text DEFAULT ''::text NOT NULL,
    CONSTRAINT job_step_result_check CHECK ((result = ANY (ARRAY['success'::text, 'warning'::text, 'error'::text]))),
    CONSTRAINT job_step_stage_check CHECK ((stage = ANY (ARRAY['steps'::text, 'always'::text])))
);

COMMENT ON TABLE syncline.job_step IS 'Each try of each step, with the beginning and the end of its output.';

ALTER TABLE syncline.job_step ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME syncline.job_step_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE syncline.kept (
    peer_id integer NOT NULL,
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    origin integer NOT NULL,
    clock bigint NOT NULL
);

COMMENT ON TABLE syncline.kept IS 'Records that left the filter of a link at the peer and were kept here; with another version than this one they count again.';

CREATE TABLE syncline.lease (
    name text NOT NULL COLLATE pg_catalog."C",
    token uuid NOT NULL,
    owner text NOT NULL,
    run_id bigint,
    site text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    peer_id integer,
    taken_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    renewed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE syncline.lease IS 'What is held, by whom and until when by the clock of this database. The token alone renews and releases.';

COMMENT ON COLUMN syncline.lease.peer_id IS 'The peer that took it through the API; null for runs of this site.';

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

CREATE TABLE syncline.parked_field (
    resource_id integer NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C"
);

COMMENT ON TABLE syncline.parked_field IS 'Names of the fields in syncline.parked, so that a batch need not look through all of it.';

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
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    paused_at timestamp with time zone
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
    fields jsonb DEFAULT '{}'::jsonb NOT NULL,
    max_deletes text,
    max_changes text,
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

CREATE TABLE syncline.peer_mark (
    peer_id integer NOT NULL,
    mark text NOT NULL COLLATE pg_catalog."C",
    first_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    superseded_at timestamp with time zone
);

COMMENT ON TABLE syncline.peer_mark IS 'Marks that a peer has shown, the current one and those before it.';

CREATE TABLE syncline.peer_schema (
    peer_id integer NOT NULL,
    resource text NOT NULL,
    fingerprint text NOT NULL,
    columns jsonb NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE syncline.peer_schema IS 'The columns of resources at peers, as they last told.';

CREATE TABLE syncline.pending_ref (
    resource_id integer NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    column_name text NOT NULL,
    target_resource_id integer NOT NULL,
    target_record_id text NOT NULL COLLATE pg_catalog."C"
);

COMMENT ON TABLE syncline.pending_ref IS 'References inside cycles whose target is not here yet; the column is null until it arrives.';

CREATE TABLE syncline.purge (
    resource_id integer NOT NULL,
    steps bigint DEFAULT 0 NOT NULL,
    xact xid8 NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C"
);

COMMENT ON TABLE syncline.purge IS 'For each resource, how often tombstones were purged and the last position among them.';

CREATE TABLE syncline.purged (
    id_hash bigint NOT NULL,
    clock bigint NOT NULL,
    xact xid8 NOT NULL,
    resource_id integer NOT NULL,
    origin integer NOT NULL,
    seen jsonb
);

COMMENT ON TABLE syncline.purged IS 'What is left of a purged tombstone: a hash of the record id, and the version of the deletion. Enough to know the record again.';

COMMENT ON COLUMN syncline.purged.xact IS 'Where the tombstone stood in the change order: peers that had not come so far ask for it by this.';

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
    asked_at timestamp with time zone,
    CONSTRAINT quarantine_via_check CHECK ((via = ANY (ARRAY['pull'::text, 'push'::text])))
);

COMMENT ON TABLE syncline.quarantine IS 'Records of peers that could not be applied, each alone, with the reason and what it waits for.';

COMMENT ON COLUMN syncline.quarantine.asked_at IS 'When the record that it waits for was last asked for by id.';

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
    born xid8 DEFAULT pg_current_xact_id(),
    resource_id integer NOT NULL,
    origin integer NOT NULL,
    source integer,
    deleted boolean DEFAULT false NOT NULL,
    record_id text NOT NULL COLLATE pg_catalog."C",
    seen jsonb,
    fields jsonb,
    counted bigint
);

COMMENT ON TABLE syncline.record IS 'One row for every record of every attached resource, living or deleted: version store, tombstone store and change feed at once.';

COMMENT ON COLUMN syncline.record.xact IS 'The transaction that wrote this version here. With record_id it is the position in the change order.';

COMMENT ON COLUMN syncline.record.born IS 'The transaction that first brought the record here, by which an undo finds what a run brought new; null after a new log.';

COMMENT ON COLUMN syncline.record.source IS 'The site this version came from; null when it was made here or settled here.';

COMMENT ON COLUMN syncline.record.seen IS 'Highest clock seen of every other origin; null means none.';

COMMENT ON COLUMN syncline.record.fields IS 'The writes behind single fields, by column; * for the others. Null: the version wrote every field.';

COMMENT ON COLUMN syncline.record.counted IS 'What this record added to the sum of its resource in syncline.digest when it was last looked at; null when it is not in the sum.';

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
    marks jsonb,
    attached_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON COLUMN syncline.resource.registered_after IS 'Last key registered while existing rows are being registered; null before and after.';

COMMENT ON COLUMN syncline.resource.marks IS 'What the triggers keep of single fields: null where nothing merges, else the columns that are counted.';

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
    received text,
    CONSTRAINT run_result_check CHECK ((result = ANY (ARRAY['success'::text, 'warning'::text, 'error'::text, 'fatal'::text])))
);

COMMENT ON COLUMN syncline.run.alive_at IS 'When the process that performs the run last said so; one that stays silent was killed.';

COMMENT ON COLUMN syncline.run.received IS 'What the peer calls the run in which it pushed what this one holds.';

CREATE TABLE syncline.run_batch (
    run_id bigint NOT NULL,
    xact xid8,
    at timestamp with time zone DEFAULT now() NOT NULL,
    resource_id integer NOT NULL,
    source integer,
    inserted integer NOT NULL,
    changed integer NOT NULL
);

COMMENT ON TABLE syncline.run_batch IS 'One row for each batch that a run applied. Records that it brought new are those whose row was born in its transaction: a baseline costs no history.';

COMMENT ON COLUMN syncline.run_batch.xact IS 'The transaction of the batch; null after a new log, as transaction ids of another cluster mean nothing.';

COMMENT ON COLUMN syncline.run_batch.changed IS 'Records that were replaced, deleted or removed; each has a row in history as long as that is kept.';

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
    mark text DEFAULT ''::text NOT NULL,
    CONSTRAINT self_one_check CHECK (one)
);

COMMENT ON COLUMN syncline.self.log_seen IS 'What identifies the cluster, database and timeline that log_id belongs to; a difference mints a new log_id.';

COMMENT ON COLUMN syncline.self.mark IS 'Made anew at every start and never shown again once it was replaced: a peer that meets a former one has met a copy.';

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
    fields jsonb DEFAULT '{}'::jsonb NOT NULL,
    on_left text DEFAULT 'keep'::text NOT NULL,
    schedule text,
    enabled boolean DEFAULT true NOT NULL,
    last_run jsonb,
    revision integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    max_deletes text,
    max_changes text,
    empty_guard boolean DEFAULT true NOT NULL,
    canary text COLLATE pg_catalog."C",
    mapping jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT task_mode_check CHECK ((mode = ANY (ARRAY['pull'::text, 'push'::text, 'both'::text]))),
    CONSTRAINT task_on_left_check CHECK ((on_left = ANY (ARRAY['keep'::text, 'remove'::text])))
);

COMMENT ON COLUMN syncline.task.schedule IS 'cron:<5 or 6 fields>, every:<seconds>, live, or null for by hand only.';

COMMENT ON COLUMN syncline.task.last_run IS 'How the last run that came to this task ended for it.';

COMMENT ON COLUMN syncline.task.max_deletes IS 'Most records that one run deletes without a person: a number, a share, both, or none; null for the usual limit.';

COMMENT ON COLUMN syncline.task.canary IS 'Id of a record that must live at the peer; without it a run does not begin to write.';

COMMENT ON COLUMN syncline.task.mapping IS 'How columns here and at the peer belong together: rename, constant, omit.';

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

ALTER TABLE ONLY syncline.agreement
    ADD CONSTRAINT agreement_pkey PRIMARY KEY (peer_id, resource_id);

ALTER TABLE ONLY syncline.alarm_notice
    ADD CONSTRAINT alarm_notice_alarm_id_moment_channel_key UNIQUE (alarm_id, moment, channel);

ALTER TABLE ONLY syncline.alarm_notice
    ADD CONSTRAINT alarm_notice_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.alarm
    ADD CONSTRAINT alarm_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.brake_meter
    ADD CONSTRAINT brake_meter_pkey PRIMARY KEY (peer_id, resource_id);

ALTER TABLE ONLY syncline.brake
    ADD CONSTRAINT brake_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.brake
    ADD CONSTRAINT brake_token_key UNIQUE (token);

ALTER TABLE ONLY syncline.checkpoint
    ADD CONSTRAINT checkpoint_pkey PRIMARY KEY (peer_id, resource_id, direction);

ALTER TABLE ONLY syncline.conflict
    ADD CONSTRAINT conflict_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.digest
    ADD CONSTRAINT digest_pkey PRIMARY KEY (resource_id);

ALTER TABLE ONLY syncline.discard
    ADD CONSTRAINT discard_peer_id_resource_id_record_id_key UNIQUE (peer_id, resource_id, record_id);

ALTER TABLE ONLY syncline.discard
    ADD CONSTRAINT discard_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.eden_archive
    ADD CONSTRAINT eden_archive_name_key UNIQUE (name);

ALTER TABLE ONLY syncline.eden_archive_piece
    ADD CONSTRAINT eden_archive_piece_pkey PRIMARY KEY (archive_id, n);

ALTER TABLE ONLY syncline.eden_archive
    ADD CONSTRAINT eden_archive_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.eden_dataset
    ADD CONSTRAINT eden_dataset_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.eden_dataset_table
    ADD CONSTRAINT eden_dataset_table_dataset_id_resource_id_key UNIQUE (dataset_id, resource_id);

ALTER TABLE ONLY syncline.eden_dataset_table
    ADD CONSTRAINT eden_dataset_table_filter_uuid_key UNIQUE (filter_uuid);

ALTER TABLE ONLY syncline.eden_dataset_table
    ADD CONSTRAINT eden_dataset_table_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.eden_dataset_table
    ADD CONSTRAINT eden_dataset_table_uuid_key UNIQUE (uuid);

ALTER TABLE ONLY syncline.eden_dataset
    ADD CONSTRAINT eden_dataset_uuid_key UNIQUE (uuid);

ALTER TABLE ONLY syncline.eden_record
    ADD CONSTRAINT eden_record_pkey PRIMARY KEY (peer_id, resource_id, record_id);

ALTER TABLE ONLY syncline.eden_registration
    ADD CONSTRAINT eden_registration_pkey PRIMARY KEY (peer_id);

ALTER TABLE ONLY syncline.eden_stranger
    ADD CONSTRAINT eden_stranger_pkey PRIMARY KEY (peer_id, table_name, uuid);

ALTER TABLE ONLY syncline.eden_table
    ADD CONSTRAINT eden_table_pkey PRIMARY KEY (peer_id, resource_id);

ALTER TABLE ONLY syncline.eden_trail
    ADD CONSTRAINT eden_trail_pkey PRIMARY KEY (peer_id, resource_id);

ALTER TABLE ONLY syncline.elsewhere
    ADD CONSTRAINT elsewhere_peer_id_resource_id_record_id_key UNIQUE (peer_id, resource_id, record_id);

ALTER TABLE ONLY syncline.elsewhere
    ADD CONSTRAINT elsewhere_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.folder_file
    ADD CONSTRAINT folder_file_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.folder_output
    ADD CONSTRAINT folder_output_pkey PRIMARY KEY (peer_id, spool);

ALTER TABLE ONLY syncline.folder
    ADD CONSTRAINT folder_pkey PRIMARY KEY (peer_id);

ALTER TABLE ONLY syncline.history
    ADD CONSTRAINT history_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.host_key
    ADD CONSTRAINT host_key_pkey PRIMARY KEY (host, port, type);

ALTER TABLE ONLY syncline.invitation
    ADD CONSTRAINT invitation_hash_key UNIQUE (hash);

ALTER TABLE ONLY syncline.invitation
    ADD CONSTRAINT invitation_name_key UNIQUE (name);

ALTER TABLE ONLY syncline.invitation
    ADD CONSTRAINT invitation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.job_definition
    ADD CONSTRAINT job_definition_name_key UNIQUE (name);

ALTER TABLE ONLY syncline.job_definition
    ADD CONSTRAINT job_definition_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.job_run
    ADD CONSTRAINT job_run_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.job_step
    ADD CONSTRAINT job_step_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.kept
    ADD CONSTRAINT kept_pkey PRIMARY KEY (peer_id, resource_id, record_id);

ALTER TABLE ONLY syncline.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (name);

ALTER TABLE ONLY syncline.log
    ADD CONSTRAINT log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.migration_lock
    ADD CONSTRAINT migration_lock_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (name);

ALTER TABLE ONLY syncline.parked_field
    ADD CONSTRAINT parked_field_pkey PRIMARY KEY (resource_id, name);

ALTER TABLE ONLY syncline.parked
    ADD CONSTRAINT parked_pkey PRIMARY KEY (resource_id, record_id);

ALTER TABLE ONLY syncline.peer_grant
    ADD CONSTRAINT peer_grant_pkey PRIMARY KEY (peer_id, resource_id, direction);

ALTER TABLE ONLY syncline.peer_mark
    ADD CONSTRAINT peer_mark_pkey PRIMARY KEY (peer_id, mark);

ALTER TABLE ONLY syncline.peer
    ADD CONSTRAINT peer_name_key UNIQUE (name);

ALTER TABLE ONLY syncline.peer
    ADD CONSTRAINT peer_pkey PRIMARY KEY (id);

ALTER TABLE ONLY syncline.peer_schema
    ADD CONSTRAINT peer_schema_pkey PRIMARY KEY (peer_id, resource);

ALTER TABLE ONLY syncline.peer
    ADD CONSTRAINT peer_uuid_key UNIQUE (uuid);

ALTER TABLE ONLY syncline.pending_ref
    ADD CONSTRAINT pending_ref_pkey PRIMARY KEY (resource_id, record_id, column_name);

ALTER TABLE ONLY syncline.purge
    ADD CONSTRAINT purge_pkey PRIMARY KEY (resource_id);

ALTER TABLE ONLY syncline.purged
    ADD CONSTRAINT purged_pkey PRIMARY KEY (resource_id, id_hash);

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

CREATE INDEX alarm_ended ON syncline.alarm USING btree (ended);

CREATE INDEX alarm_notice_open ON syncline.alarm_notice USING btree (id) WHERE ((sent_at IS NULL) AND (NOT given_up));

CREATE UNIQUE INDEX alarm_open ON syncline.alarm USING btree (code, peer, resource) WHERE (ended IS NULL);

CREATE UNIQUE INDEX brake_open ON syncline.brake USING btree (peer_id, COALESCE(resource_id, 0), direction) WHERE (ended_at IS NULL);

CREATE INDEX conflict_open ON syncline.conflict USING btree (resource_id, record_id) WHERE (resolved_at IS NULL);

CREATE UNIQUE INDEX eden_dataset_code ON syncline.eden_dataset USING btree (code) WHERE (removed_at IS NULL);

CREATE INDEX eden_record_merged ON syncline.eden_record USING btree (peer_id, resource_id) WHERE (replaced_by IS NOT NULL);

CREATE INDEX eden_record_refused ON syncline.eden_record USING btree (peer_id, resource_id, retry_at) WHERE (refused IS NOT NULL);

CREATE INDEX eden_record_shown ON syncline.eden_record USING btree (resource_id, record_id) WHERE (origin IS NOT NULL);

CREATE INDEX eden_stranger_within ON syncline.eden_stranger USING btree (resource_id, record_id) WHERE (record_id IS NOT NULL);

CREATE UNIQUE INDEX folder_file_name ON syncline.folder_file USING btree (peer_id, name) WHERE (NOT gone);

CREATE INDEX folder_file_place ON syncline.folder_file USING btree (peer_id, place) WHERE (state = 'waiting'::text);

CREATE INDEX history_at ON syncline.history USING btree (at);

CREATE INDEX history_record ON syncline.history USING btree (resource_id, record_id, id);

CREATE INDEX history_run ON syncline.history USING btree (run_id) WHERE (run_id IS NOT NULL);

CREATE INDEX job_due ON syncline.job_definition USING btree (next_due) WHERE (enabled AND (next_due IS NOT NULL));

CREATE INDEX job_run_changed ON syncline.job_run USING btree (changed_at);

CREATE INDEX job_run_dead ON syncline.job_run USING btree (job_id) WHERE dead;

CREATE UNIQUE INDEX job_run_due ON syncline.job_run USING btree (job_id, due_at) WHERE (due_at IS NOT NULL);

CREATE INDEX job_run_of ON syncline.job_run USING btree (job_id, id);

CREATE INDEX job_run_open ON syncline.job_run USING btree (next_at) WHERE (phase <> 'over'::text);

CREATE INDEX job_step_of ON syncline.job_step USING btree (run_id, id);

CREATE INDEX log_at ON syncline.log USING btree (at);

CREATE INDEX log_peer ON syncline.log USING btree (peer_id, id DESC);

CREATE INDEX log_resource ON syncline.log USING btree (resource, id DESC);

CREATE INDEX log_run ON syncline.log USING btree (run_id, id DESC) WHERE (run_id IS NOT NULL);

CREATE INDEX pending_ref_target ON syncline.pending_ref USING btree (target_resource_id, target_record_id);

CREATE INDEX quarantine_record ON syncline.quarantine USING btree (resource_id, record_id);

CREATE INDEX quarantine_waits ON syncline.quarantine USING btree (waits_resource_id, waits_record_id);

CREATE INDEX record_feed ON syncline.record USING btree (resource_id, xact, record_id);

CREATE INDEX record_tombstones ON syncline.record USING btree (resource_id, xact, record_id) WHERE deleted;

CREATE INDEX run_batch_run ON syncline.run_batch USING btree (run_id);

CREATE INDEX run_batch_xact ON syncline.run_batch USING btree (xact);

CREATE INDEX run_open ON syncline.run USING btree (id) WHERE (finished_at IS NULL);

CREATE INDEX run_peer ON syncline.run USING btree (peer_id, id DESC);

CREATE UNIQUE INDEX run_received ON syncline.run USING btree (peer_id, received) WHERE (received IS NOT NULL);

CREATE TRIGGER uncount AFTER DELETE ON syncline.record REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION syncline.uncount();

ALTER TABLE syncline.record ENABLE ALWAYS TRIGGER uncount;

ALTER TABLE ONLY syncline.agreement
    ADD CONSTRAINT agreement_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.agreement
    ADD CONSTRAINT agreement_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.alarm_notice
    ADD CONSTRAINT alarm_notice_alarm_id_fkey FOREIGN KEY (alarm_id) REFERENCES syncline.alarm(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.brake_meter
    ADD CONSTRAINT brake_meter_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.brake_meter
    ADD CONSTRAINT brake_meter_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.brake
    ADD CONSTRAINT brake_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.brake
    ADD CONSTRAINT brake_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.checkpoint
    ADD CONSTRAINT checkpoint_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.checkpoint
    ADD CONSTRAINT checkpoint_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.conflict
    ADD CONSTRAINT conflict_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE SET NULL;

ALTER TABLE ONLY syncline.conflict
    ADD CONSTRAINT conflict_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.digest
    ADD CONSTRAINT digest_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.discard
    ADD CONSTRAINT discard_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.discard
    ADD CONSTRAINT discard_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_archive
    ADD CONSTRAINT eden_archive_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES syncline.eden_dataset(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_archive_piece
    ADD CONSTRAINT eden_archive_piece_archive_id_fkey FOREIGN KEY (archive_id) REFERENCES syncline.eden_archive(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_dataset_table
    ADD CONSTRAINT eden_dataset_table_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES syncline.eden_dataset(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_dataset_table
    ADD CONSTRAINT eden_dataset_table_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_record
    ADD CONSTRAINT eden_record_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_record
    ADD CONSTRAINT eden_record_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_registration
    ADD CONSTRAINT eden_registration_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_stranger
    ADD CONSTRAINT eden_stranger_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_stranger
    ADD CONSTRAINT eden_stranger_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_table
    ADD CONSTRAINT eden_table_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_table
    ADD CONSTRAINT eden_table_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_trail
    ADD CONSTRAINT eden_trail_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.eden_trail
    ADD CONSTRAINT eden_trail_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.elsewhere
    ADD CONSTRAINT elsewhere_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.elsewhere
    ADD CONSTRAINT elsewhere_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.folder_file
    ADD CONSTRAINT folder_file_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.folder_output
    ADD CONSTRAINT folder_output_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.folder
    ADD CONSTRAINT folder_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.job_run
    ADD CONSTRAINT job_run_job_id_fkey FOREIGN KEY (job_id) REFERENCES syncline.job_definition(id) ON DELETE SET NULL;

ALTER TABLE ONLY syncline.job_step
    ADD CONSTRAINT job_step_run_id_fkey FOREIGN KEY (run_id) REFERENCES syncline.job_run(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.kept
    ADD CONSTRAINT kept_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.kept
    ADD CONSTRAINT kept_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.lease
    ADD CONSTRAINT lease_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.log
    ADD CONSTRAINT log_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE SET NULL;

ALTER TABLE ONLY syncline.parked_field
    ADD CONSTRAINT parked_field_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.parked
    ADD CONSTRAINT parked_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.peer_grant
    ADD CONSTRAINT peer_grant_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.peer_grant
    ADD CONSTRAINT peer_grant_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.peer_mark
    ADD CONSTRAINT peer_mark_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.peer_schema
    ADD CONSTRAINT peer_schema_peer_id_fkey FOREIGN KEY (peer_id) REFERENCES syncline.peer(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.peer
    ADD CONSTRAINT peer_site_id_fkey FOREIGN KEY (site_id) REFERENCES syncline.site(id);

ALTER TABLE ONLY syncline.pending_ref
    ADD CONSTRAINT pending_ref_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.pending_ref
    ADD CONSTRAINT pending_ref_target_resource_id_fkey FOREIGN KEY (target_resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.purge
    ADD CONSTRAINT purge_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

ALTER TABLE ONLY syncline.purged
    ADD CONSTRAINT purged_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES syncline.resource(id) ON DELETE CASCADE;

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
