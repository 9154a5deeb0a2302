-- Least-privilege roles. They can log in only once the postgres role has given them a password.
-- depends:

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['spark_writer', 'flink_writer', 'lab_reader'] LOOP
        -- Roles belong to the whole cluster, not to this database: they may be there already.
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO spark_writer, flink_writer, lab_reader;
