-- The sweep removes copies that no session asked for.
CREATE INDEX home_documents_by_check ON home_documents (checked_at);
