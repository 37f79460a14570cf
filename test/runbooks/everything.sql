-- A database with whatever Postgres has that a backup could lose. Run as the customer's own role.
CREATE EXTENSION pgcrypto;
CREATE EXTENSION citext;
CREATE EXTENSION hstore;

CREATE SCHEMA "Other Words";
CREATE TYPE mood AS ENUM ('sad', 'fine', 'happy');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TYPE pair AS (one integer, other text);
CREATE COLLATION "Other Words".plain (provider = libc, locale = 'C');
CREATE SEQUENCE invoices START 1000 INCREMENT 7;
SELECT nextval('invoices'), nextval('invoices');

CREATE TABLE people (
  id integer GENERATED ALWAYS AS IDENTITY (START 100) PRIMARY KEY,
  email citext NOT NULL UNIQUE,
  name text COLLATE "C" NOT NULL,
  nickname text COLLATE "Other Words".plain,
  shouted text GENERATED ALWAYS AS (upper(name)) STORED,
  mood mood NOT NULL DEFAULT 'fine',
  amount positive,
  pair pair,
  tags text[] NOT NULL DEFAULT '{}',
  matrix integer[][],
  data jsonb,
  raw json,
  bytes bytea,
  attributes hstore,
  invoice bigint NOT NULL DEFAULT nextval('invoices'),
  born timestamptz,
  price numeric(12, 3),
  address inet,
  span tstzrange,
  CONSTRAINT known CHECK (born > '1800-01-01')
);
INSERT INTO people (email, name, nickname, mood, amount, pair, tags, matrix, data, raw, bytes, attributes, born, price, address, span)
SELECT 'User' || i || '@Example.ORG', 'zoë ' || i, E'tab\tnew\nline\\ ''quote'' ' || i, (ARRAY['sad', 'fine', 'happy'])[1 + i % 3]::mood,
  i, ROW(i, 'x"y,(z)')::pair, ARRAY['a,b', NULL, '{}', '"'], ARRAY[[i, 2], [3, NULL]], jsonb_build_object('b', i, 'a', NULL),
  '{"b" :  1,"b":2}', decode(md5(i::text), 'hex') || '\x00ff', 'k=>v, "a b"=>NULL', '1970-01-01 00:00:00.000001+05:30'::timestamptz + i * interval '1 day',
  i / 3.0, '10.0.0.1/8', '[2020-01-01,2021-01-01)'
FROM generate_series(1, 500) i;
INSERT INTO people (email, name) VALUES ('empty@example.org', '');
CREATE INDEX ON people (lower(name) COLLATE "C") WHERE mood <> 'sad';
CREATE INDEX ON people USING gin (data);

CREATE TABLE "Other Words"."Table ""quoted"".one" (
  id integer PRIMARY KEY,
  person integer REFERENCES people ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  "select" text
);
INSERT INTO "Other Words"."Table ""quoted"".one" SELECT i, 99 + i, 'row ' || i FROM generate_series(1, 20) i;

CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (what);
CREATE TABLE events_2026_a PARTITION OF events_2026 FOR VALUES IN ('a');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
INSERT INTO events VALUES ('2025-03-01', 'x'), ('2026-03-01', 'a'), ('1999-12-31', 'party'), ('2025-04-01', 'y');

CREATE TABLE animals (name text, legs integer DEFAULT 4);
CREATE TABLE cats (lives integer DEFAULT 9) INHERITS (animals);
INSERT INTO animals VALUES ('hen', 2), ('cow', 4);
INSERT INTO cats (name) VALUES ('tom'), ('kit'), ('max');

CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.changes := NEW.changes + 1;
  INSERT INTO log VALUES (TG_OP, NEW.id);
  RETURN NEW;
END $$;
CREATE TABLE log (op text, id integer);
CREATE TABLE watched (id integer PRIMARY KEY, changes integer NOT NULL DEFAULT 0);
CREATE TRIGGER watched_change BEFORE INSERT OR UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION note_change();
INSERT INTO watched SELECT i FROM generate_series(1, 10) i;

CREATE VIEW happy AS SELECT id, email, (pair).other FROM people WHERE mood = 'happy';
CREATE MATERIALIZED VIEW moods AS SELECT mood, count(*) FROM people GROUP BY mood;
CREATE UNIQUE INDEX ON moods (mood);
-- Not what its query would say by now, as it is between two refreshes.
CREATE MATERIALIZED VIEW names AS SELECT name FROM people WHERE id < 200;
DELETE FROM people WHERE id = 150;
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;

CREATE UNLOGGED TABLE cache (key text PRIMARY KEY, value text);
INSERT INTO cache VALUES ('a', 'b');

CREATE TABLE private (tenant text, secret text);
ALTER TABLE private ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON private USING (tenant = current_user);
INSERT INTO private VALUES ('somebody else', 'x'), (current_user, 'y');

CREATE FUNCTION surface(side positive) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN side::bigint * side;
CREATE AGGREGATE product (integer) (SFUNC = int4mul, STYPE = integer, INITCOND = '1');
CREATE STATISTICS people_mood (dependencies) ON mood, amount FROM people;
CREATE RULE no_log AS ON DELETE TO log DO INSTEAD NOTHING;
ALTER DEFAULT PRIVILEGES IN SCHEMA "Other Words" GRANT SELECT ON TABLES TO PUBLIC;
GRANT USAGE ON SCHEMA "Other Words" TO PUBLIC;
GRANT SELECT (id) ON people TO PUBLIC;
REVOKE EXECUTE ON FUNCTION surface FROM PUBLIC;

SELECT lo_from_bytea(4711, decode(repeat('00ff10', 5000), 'hex')), lo_from_bytea(4712, ''), lo_create(4713);
COMMENT ON LARGE OBJECT 4711 IS 'a large one';
GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC;

COMMENT ON SCHEMA public IS 'where most of it is';
COMMENT ON TABLE people IS 'those who''d like "quotes"';
COMMENT ON COLUMN people.shouted IS E'made\nof name';
COMMENT ON FUNCTION surface IS 'of a square';
COMMENT ON TYPE mood IS 'how one is';
