-- The previous cookie that a browser showed once more because the answer with the next one was lost. Its hash; it is
-- not accepted again.
ALTER TABLE devices ADD COLUMN spent TEXT;
